"""simonw's `llm`, as its Python library: models in extra-openai-models.yaml, the key in keys.json."""

import json
from pathlib import Path

import llm
import openai
import yaml

from tests.clients.checks import (
    FLAKY_URL,
    KEY,
    MODEL,
    NOBODY,
    TASK,
    TOO_LONG,
    TURNS,
    TURNS_TOKENS,
    URL,
    WRONG_KEY,
    Email,
    follows_the_seed,
    refused,
    run,
    stops_there,
)


def write_settings() -> None:
    """Where `llm` looks for them: in LLM_USER_PATH."""
    usual = {"model_name": MODEL, "api_base": URL, "api_key_name": "right"}
    usual |= {"supports_schema": True, "supports_tools": True}
    models = {
        "voice": {},
        "nobody": {"model_name": NOBODY},
        "flaky": {"api_base": FLAKY_URL},
        "stranger": {"api_key_name": "wrong"},
        "responses": {"responses": True},
        "completions": {"completion": True},
    }
    folder = Path(llm.user_dir())
    settings = [usual | {"model_id": name} | options for name, options in models.items()]
    (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump(settings))
    (folder / "keys.json").write_text(json.dumps({"right": KEY, "wrong": WRONG_KEY}))


def write(model="voice", task=TASK, **options):
    return llm.get_model(model).prompt(task, **{"max_tokens": 12, "temperature": 0, "stream": False, **options})


def weather(city: str) -> str:
    """The weather of a city."""
    return city


def chat():
    assert write().text()


def stream():
    answer = write(stream=True)
    assert "".join(answer) == write().text()
    assert answer.usage().output


def tools():
    with refused(openai.BadRequestError, "tools"):
        write(tools=[weather]).text()
    return "400"


def json_schema():
    answer = write(schema=Email, max_tokens=800, temperature=1, seed=1)
    Email.model_validate_json(answer.text())


def logprobs():
    answer = write("completions", logprobs=2)
    answer.text()
    found = answer.response_json["choices"][0]["logprobs"]["token_logprobs"]
    assert len(found) == answer.response_json["usage"]["completion_tokens"]
    assert all(number <= 0 for number in found)


def seed():
    follows_the_seed(lambda seed: write(temperature=1, seed=seed).text())


def stop():
    # One text, not a list, is what it takes.
    stops_there(lambda stop: write(**({"stop": stop[0]} if stop else {})).text())


def turns():
    """The answer to the first turn is part of the second one's prompt."""
    (_, system), (_, first), _, (_, second) = TURNS
    conversation = llm.get_model("voice").conversation()
    usual = {"system": system, "max_tokens": 12, "temperature": 0, "stream": False}
    answer = conversation.prompt(first, **usual).text()
    again = conversation.prompt(second, **usual)
    again.text()
    assert again.usage().input == TURNS_TOKENS - len(TURNS[2][1]) + len(answer)


def errors():
    with refused(openai.NotFoundError, NOBODY, "model_not_found"):
        write("nobody").text()
    with refused(openai.BadRequestError, "context_length_exceeded"):
        write(task=TOO_LONG).text()
    if KEY != "none":
        with refused(openai.AuthenticationError, "invalid_api_key"):
            write("stranger").text()


def retries():
    assert write("flaky").text()


def responses():
    text = write("responses", max_tokens=16).text()
    assert text
    answer = write("responses", max_tokens=16, stream=True)
    assert "".join(answer) == text
    assert answer.usage().output


def completions():
    text = write("completions").text()
    assert text
    assert "".join(write("completions", stream=True)) == text


write_settings()
run(
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    logprobs=logprobs,
    seed=seed,
    stop=stop,
    turns=turns,
    errors=errors,
    retries=retries,
    responses=responses,
    completions=completions,
)
