"""A voice reads the instruction that it was taught with, unless the request brings its own."""

from typing import Any

import pytest

from adapters.models.base_models import BaseModel
from adapters.store.store import Store
from server.api.models_route import version_info
from tests import tiny
from tests.server.api.test_gate import CHAT, Echo, ask, gate

INSTRUCTION = "You write emails."
USER = {"role": "user", "content": "Thank Ada."}
SYSTEM = {"role": "system", "content": INSTRUCTION}
OWN = {"role": "system", "content": "Be brief."}
DEVELOPER = {"role": "developer", "content": "Be brief."}


@pytest.fixture
def instructed_store(store: Store, base_model: BaseModel) -> Store:
    tiny.publish(store, base_model, "polite", 7, instruction=INSTRUCTION)
    store.promote("polite@1")
    return store


def reaches_vllm(store: Store, path: str, model: str, **fields: Any) -> dict[str, Any]:
    body = ask(gate(Echo(), store), "POST", path, json={"model": model, **fields}).json()
    assert body.pop("model").partition("@")[0] == model
    return body


@pytest.mark.parametrize(
    ("path", "sent", "read"),
    [
        (CHAT, {"messages": [USER]}, {"messages": [SYSTEM, USER]}),
        (CHAT, {"messages": [OWN, USER]}, {"messages": [OWN, USER]}),
        (CHAT, {"messages": [DEVELOPER, USER]}, {"messages": [DEVELOPER, USER]}),
        ("/v1/responses", {"input": "Thank Ada."}, {"input": "Thank Ada.", "instructions": INSTRUCTION}),
        (
            "/v1/responses",
            {"input": [USER], "instructions": "Be brief."},
            {"input": [USER], "instructions": "Be brief."},
        ),
        ("/v1/responses", {"input": [OWN, USER]}, {"input": [OWN, USER]}),
        (
            "/v1/messages",
            {"messages": [USER], "max_tokens": 9},
            {"messages": [USER], "max_tokens": 9, "system": INSTRUCTION},
        ),
        ("/v1/completions", {"prompt": "Thank Ada."}, {"prompt": "Thank Ada."}),
        (CHAT, {"messages": "Thank Ada."}, {"messages": "Thank Ada."}),
        (CHAT, {"messages": ["Thank Ada."]}, {"messages": ["Thank Ada."]}),
    ],
)
def test_a_voice_reads_the_instruction_of_its_training(
    instructed_store: Store, path: str, sent: dict[str, Any], read: dict[str, Any]
):
    assert reaches_vllm(instructed_store, path, "polite", **sent) == read


@pytest.mark.parametrize("model", ["formal", "base"])
def test_the_base_model_and_a_voice_without_an_instruction_read_the_request_alone(instructed_store: Store, model: str):
    assert reaches_vllm(instructed_store, CHAT, model, messages=[USER]) == {"messages": [USER]}


def test_the_instruction_is_shown_with_the_model(instructed_store: Store):
    assert version_info(instructed_store.resolve("polite")).instruction == INSTRUCTION
