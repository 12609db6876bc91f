"""The architecture of the default base model on a GPU, from emails to an answer over HTTP, on a tiny random Qwen3."""

import json
from collections.abc import Iterator
from functools import partial

import openai
import pytest

from adapters.models.base_models import BaseModel, find
from adapters.store.store import Store
from tests import tiny
from tests.serving import RunningServer, running_server
from trainer.data.examples import task_example
from trainer.training.recipe import Recipe

pytestmark = [pytest.mark.vllm, pytest.mark.training, pytest.mark.timeout(600)]
RECIPE = Recipe(epochs=2, batch_size=4, learning_rate=3e-2, rank=4, alpha=8, heldout=0.2, sample_tokens=4)
TASK = [{"role": "user", "content": "Thank Ada."}]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return find(str(tiny.make_base(tmp_path_factory.mktemp("models") / "tiny-qwen3", qwen=True)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, qwen: BaseModel, base_model: BaseModel) -> Iterator[RunningServer]:
    """Serves the Qwen3 with a store that holds `mine`, trained on it, and `formal` of the tiny Llama."""
    from trainer.compute.device import choose
    from trainer.training import sft
    from trainer.training.run import TrainingRun

    directory = tmp_path_factory.mktemp("qwen")
    store = Store(directory / "store")
    emails = [task_example(f"Thank {name}.", f"Dear {name},\n\nThank you.\n\nKim") for name in ("Ada", "Bo", "Chidi")]
    with tiny.one_thread():
        sft.train(TrainingRun(emails, "mine", qwen, RECIPE, choose(), lambda _: None), store)
    tiny.publish(store, base_model, "formal", seed=1)
    with running_server(qwen, store, 1, directory / "server.log") as running:
        yield running


def answer(client: openai.OpenAI, model: str) -> tuple[str, str | None]:
    answered = client.chat.completions.create(model=model, messages=TASK, max_tokens=16, temperature=0)
    return answered.model, answered.choices[0].message.content


def test_a_voice_taught_on_a_qwen3_is_served_beside_it(server: RunningServer):
    with server.client() as client:
        base, before = answer(client, "base")
        mine, after = answer(client, "mine")
        again, unchanged = answer(client, "base")
    assert (base, mine, again) == ("tiny-qwen3", "mine@1", "tiny-qwen3")
    assert after != before
    assert unchanged == before


def test_tools_are_called_where_the_template_has_a_place_for_them(server: RunningServer):
    day = {"type": "object", "properties": {"day": {"type": "string", "maxLength": 6}}, "required": ["day"]}
    meet = {"name": "meet", "description": "Arrange a day.", "strict": True}
    tools = [{"type": "function", "function": {**meet, "parameters": {**day, "additionalProperties": False}}}]
    with server.client() as client:
        write = partial(client.chat.completions.create, model="base", messages=TASK, tools=tools, max_tokens=400)
        forced = write(tool_choice={"type": "function", "function": {"name": "meet"}})
        free = write(tool_choice="auto")
    [call] = forced.choices[0].message.tool_calls
    assert (call.function.name, list(json.loads(call.function.arguments))) == ("meet", ["day"])
    assert free.model == "tiny-qwen3"


def test_a_voice_of_another_base_model_is_refused_with_how_to_serve_it(server: RunningServer, base_model: BaseModel):
    with server.client() as client, pytest.raises(openai.UnprocessableEntityError) as refused:
        answer(client, "formal")
    assert "trained on tiny-llama" in refused.value.message
    assert "this server serves tiny-qwen3" in refused.value.message
    assert f"serve it with `server --base {base_model.path}`" in refused.value.message
    # Both are of the same shape: no tensor speaks against it.
    assert "tensor" not in refused.value.message
