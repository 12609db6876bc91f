"""Anthropic's client, on /v1/messages."""

import anthropic
from anthropic import Anthropic

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
    stops_there,
)

client = Anthropic(base_url=URL.removesuffix("/v1"), api_key=KEY)
USUAL = {"model": MODEL, "max_tokens": 12, "messages": [{"role": "user", "content": TASK}]}
# Without it an answer may be empty by chance; the client no longer has a parameter for it.
GREEDY = {"extra_body": {"temperature": 0}}
WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


def text(**options):
    content = client.messages.create(**USUAL, **GREEDY, **options).content
    return "".join(block.text for block in content)


def chat():
    assert text()


def stream():
    with client.messages.stream(**USUAL, **GREEDY) as answer:
        assert "".join(answer.text_stream) == text()
        assert answer.get_final_message().usage.output_tokens


def tools():
    with refused(anthropic.BadRequestError, "tools"):
        client.messages.create(**USUAL, tools=[WEATHER])
    return "400"


def json_schema():
    answer = client.messages.parse(**USUAL | {"max_tokens": 1200}, output_format=Email)
    assert isinstance(answer.parsed_output, Email)


def stop():
    stops_there(lambda stop: text(stop_sequences=stop))


def turns():
    (_, system), *others = TURNS
    messages = [{"role": role, "content": content} for role, content in others]
    answer = client.messages.create(**USUAL | {"messages": messages, "system": system})
    assert answer.usage.input_tokens == TURNS_TOKENS


def errors():
    with refused(anthropic.NotFoundError, NOBODY):
        client.messages.create(**USUAL | {"model": NOBODY})
    with refused(anthropic.BadRequestError, "context"):
        client.messages.create(**USUAL | {"messages": [{"role": "user", "content": TOO_LONG}]})
    if KEY != "none":
        with refused(anthropic.AuthenticationError, "invalid_api_key"):
            Anthropic(base_url=URL.removesuffix("/v1"), api_key=WRONG_KEY).messages.create(**USUAL)


def retries():
    flaky = Anthropic(base_url=FLAKY_URL.removesuffix("/v1"), api_key=KEY)
    assert flaky.messages.create(**USUAL, **GREEDY).content[0].text


run(
    chat=chat,
    stream=stream,
    tools=tools,
    json_schema=json_schema,
    stop=stop,
    turns=turns,
    errors=errors,
    retries=retries,
)
