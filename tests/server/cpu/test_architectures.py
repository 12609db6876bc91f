"""Every named base model's architecture agrees with PEFT, also with 8-bit weights: Qwen2 has biases, Qwen3 norms.

The tiny Llama is compared over HTTP, in test_lora.py and test_int8.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from adapters.models.base_models import find
from server.cpu import build, int8
from server.vllm_server import LORA_MODULES
from tests import tiny
from tests.by_peft import next_token
from tests.serving import ROOT

PROMPTS = ["Write to Ada about the chairs.", "Thank Bo.", "Twelve of them came on Monday", "Cancel the order, please:"]
KINDS = {"float32": ("float32", False), "bf16": ("bfloat16", False), "int8": ("bfloat16", True)}
Said = dict[str, list[list[float]]]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Said]]:
    """By architecture and kind, and `peft`: the log probabilities of a tiny model, and of an adapter of it."""
    assert build.build(print) is None
    directory = tmp_path_factory.mktemp("architectures")
    bases = {
        "qwen2": find(str(tiny.make_base(directory / "qwen2", biases=True))),
        "qwen3": find(str(tiny.make_base(directory / "qwen3", qwen=True))),
    }
    models = []
    for name, base in bases.items():
        adapter = tiny.make_adapter(base.path, directory / f"{name}-adapter", seed=1)
        rounded = int8.prepare(base, LORA_MODULES, print)
        for dtype, rounds in KINDS.values():
            models.append({"model": str(rounded if rounds else base.path), "dtype": dtype, "adapter": str(adapter)})
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "next_tokens.py")],
        input=json.dumps({"prompts": PROMPTS, "models": models}),
        capture_output=True,
        text=True,
        env={**os.environ, "VLLM_PLUGINS": "mailwright_general", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
    answers = iter(json.loads(done.stdout.splitlines()[-1]))
    return {
        name: {kind: next(answers) for kind in KINDS} | {"peft": by_peft(base.path, directory / f"{name}-adapter")}
        for name, base in bases.items()
    }


def by_peft(base: Path, adapter: Path) -> Said:
    return {
        who: [list(row.values()) for row in next_token(base, path, PROMPTS)]
        for who, path in {"base": None, "voice": adapter}.items()
    }


def apart(one: list[list[float]], other: list[list[float]]) -> float:
    """How far two tables of log probabilities are apart on average."""
    return fmean(abs(a - b) for row, its in zip(one, other, strict=True) for a, b in zip(row, its, strict=True))


@pytest.mark.vllm
@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", ["base", "voice"])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_it_says_what_peft_says(everything: dict[str, dict[str, Said]], architecture: str, who: str):
    said = everything[architecture]
    assert said["float32"][who] == [pytest.approx(row, abs=1e-3) for row in said["peft"][who]]
    effect = apart(said["peft"]["base"], said["peft"]["voice"])
    assert apart(said["bf16"][who], said["peft"][who]) < effect / 10
    assert apart(said["int8"][who], said["bf16"][who]) > 0
    assert apart(said["int8"][who], said["peft"][who]) < effect / 4
