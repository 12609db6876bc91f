"""instructor, around OpenAI's client: emails as objects."""

import instructor
import openai
from instructor.core import InstructorRetryException

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
    refused,
    run,
)

MESSAGES = [{"role": "user", "content": TASK}]
USUAL = {"model": MODEL, "messages": MESSAGES, "max_tokens": 800, "temperature": 1, "seed": 1}


def client(url=URL, key=KEY, mode=instructor.Mode.JSON_SCHEMA):
    return instructor.from_openai(openai.OpenAI(base_url=url, api_key=key), mode=mode)


def chat():
    answer = client().create(response_model=None, **USUAL | {"max_tokens": 12})
    assert answer.choices[0].message.content


def stream():
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 12}
    chunks = list(client().create(response_model=None, **USUAL | options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.completion_tokens


def tools():
    with refused(InstructorRetryException, "tools", "400"):
        client(mode=instructor.Mode.TOOLS).create(response_model=Email, **USUAL)
    return "400"


def json_schema():
    assert isinstance(client().create(response_model=Email, **USUAL), Email)
    *_, last = client().create_partial(response_model=Email, **USUAL)
    Email.model_validate(last.model_dump())


def turns():
    messages = [{"role": role, "content": content} for role, content in TURNS]
    answer = client().create(response_model=None, **USUAL | {"messages": messages, "max_tokens": 12})
    assert answer.usage.prompt_tokens == TURNS_TOKENS


def errors():
    with refused(InstructorRetryException, NOBODY, "model_not_found"):
        client().create(response_model=Email, **USUAL | {"model": NOBODY})
    with refused(InstructorRetryException, "context_length_exceeded"):
        client().create(response_model=Email, **USUAL | {"messages": [{"role": "user", "content": TOO_LONG}]})
    if KEY != "none":
        with refused(InstructorRetryException, "invalid_api_key"):
            client(key=WRONG_KEY).create(response_model=Email, **USUAL)


def retries():
    assert isinstance(client(FLAKY_URL).create(response_model=Email, **USUAL), Email)


run(
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    turns=turns,
    errors=errors,
    retries=retries,
)
