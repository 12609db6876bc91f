"""What a training takes of memory, and a batch read in parts."""

from pathlib import Path

import psutil
import pytest
import torch
from safetensors.numpy import load_file

from adapters.errors import ConfigError
from tests import tiny
from trainer.compute import memory
from trainer.compute.memory import check_free, in_parts, size_of, tokens_at_once, training_bytes


def test_the_size_of_a_model_is_read_from_its_files(tiny_base: Path):
    size = size_of(tiny_base, rank=4)
    tensors = load_file(tiny_base / "model.safetensors")
    assert size.parameters == sum(tensor.size for tensor in tensors.values())
    assert size.adapter_parameters == tiny.LAYERS * 4 * sum(map(sum, tiny.LINEARS.values()))
    assert (size.layers, size.hidden) == (tiny.LAYERS, tiny.HIDDEN)


def test_a_longer_step_takes_more_memory_up_to_what_is_read_at_once(tiny_base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "KEPT_BYTES", 1_000_000)
    most = tokens_at_once(tiny_base, 4)
    taken = [training_bytes(tiny_base, 4, 4, tokens) for tokens in (most // 2, most, most + 9)]
    assert taken[0] < taken[1]
    assert taken[2] - taken[1] < 1_000_000 / most
    assert tokens_at_once(tiny_base, 2) > most


def test_all_weights_from_scratch_take_more_than_an_adapter(tiny_base: Path):
    assert training_bytes(tiny_base, 4, 4, 100, from_scratch=True) > training_bytes(tiny_base, 4, 4, 100)


def test_too_little_free_memory_is_an_error_that_says_how_much_is_needed():
    more_than_all = 2 * (psutil.virtual_memory().total + psutil.swap_memory().total)
    check_free(1, "tiny")
    with pytest.raises(ConfigError, match=r"training tiny here takes about \S+ GB of memory, and \S+ GB are free"):
        check_free(more_than_all, "tiny")


def test_a_batch_is_read_in_parts_in_order_without_the_padding_of_other_parts():
    lengths = [3, 2, 6, 1, 9]
    mask_BT = torch.tensor([[1] * length + [0] * (9 - length) for length in lengths])
    ids_BT = torch.arange(45).view(5, 9)
    parts = in_parts({"attention_mask": mask_BT, "input_ids": ids_BT}, most_tokens=6)
    assert [part["attention_mask"].sum(1).tolist() for part in parts] == [[3, 2], [6], [1], [9]]
    assert [tuple(part["input_ids"].shape) for part in parts] == [(2, 3), (1, 6), (1, 1), (1, 9)]
    assert parts[0]["input_ids"].tolist() == [[0, 1, 2], [9, 10, 11]]
