"""OpenAI's own client for Python."""

import openai
from openai import OpenAI

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

client = OpenAI(base_url=URL, api_key=KEY)
MESSAGES = [{"role": "user", "content": TASK}]
USUAL = {"model": MODEL, "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def write(**options):
    return client.chat.completions.create(**USUAL | options)


def text(**options):
    return write(**options).choices[0].message.content


def chat():
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=12, temperature=0)
    assert answer.choices[0].message.content
    assert answer.model.startswith(f"{MODEL}@")


def stream():
    chunks = list(write(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text()
    assert chunks[-1].usage.completion_tokens


def tools():
    with refused(openai.BadRequestError, "tools"):
        write(tools=[WEATHER])
    return "400"


def json_schema():
    options = {"response_format": Email, "max_tokens": 800, "temperature": 1, "seed": 1}
    answer = client.chat.completions.parse(**USUAL | options)
    assert isinstance(answer.choices[0].message.parsed, Email)


def logprobs():
    answer = write(logprobs=True, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


def seed():
    follows_the_seed(lambda seed: text(temperature=1, seed=seed))


def stop():
    stops_there(lambda stop: text(stop=stop))


def turns():
    messages = [{"role": role, "content": content} for role, content in TURNS]
    assert write(messages=messages).usage.prompt_tokens == TURNS_TOKENS


def errors():
    with refused(openai.NotFoundError, NOBODY, "model_not_found"):
        write(model=NOBODY)
    with refused(openai.BadRequestError, "context_length_exceeded"):
        write(messages=[{"role": "user", "content": TOO_LONG}])
    if KEY != "none":
        with refused(openai.AuthenticationError, "invalid_api_key"):
            OpenAI(base_url=URL, api_key=WRONG_KEY).models.list()


def retries():
    flaky = OpenAI(base_url=FLAKY_URL, api_key=KEY)
    assert flaky.chat.completions.create(**USUAL).choices[0].message.content


def responses():
    usual = {"model": MODEL, "input": TASK, "max_output_tokens": 16, "temperature": 0}
    answer = client.responses.create(**usual)
    assert answer.output_text
    with client.responses.stream(**usual) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == answer.output_text
        assert events.get_final_response().usage == answer.usage


def completions():
    answer = client.completions.create(model=MODEL, prompt=TASK, max_tokens=12, temperature=0)
    assert answer.choices[0].text
    assert answer.usage.completion_tokens


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
