"""LangChain, through langchain-openai."""

import openai
from langchain_openai import ChatOpenAI, OpenAI

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


def model(**options):
    usual = {"base_url": URL, "api_key": KEY, "model": MODEL, "max_tokens": 12, "temperature": 0}
    return ChatOpenAI(**usual | options)


def weather(city: str) -> str:
    """The weather of a city."""
    return city


def chat():
    assert model().invoke(TASK).text


def stream():
    chunks = list(model(stream_usage=True).stream(TASK))
    assert "".join(chunk.text for chunk in chunks) == model().invoke(TASK).text
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata)


def tools():
    with refused(openai.BadRequestError, "tools"):
        model().bind_tools([weather]).invoke(TASK)
    return "400"


def json_schema():
    writer = model(max_tokens=800, temperature=1, seed=1).with_structured_output(Email)
    assert isinstance(writer.invoke(TASK), Email)


def logprobs():
    answer = model(logprobs=True, top_logprobs=2).invoke(TASK)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert len(tokens) == answer.usage_metadata["output_tokens"]
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 2 for token in tokens)


def seed():
    follows_the_seed(lambda seed: model(temperature=1, seed=seed).invoke(TASK).text)


def stop():
    stops_there(lambda stop: model(stop=stop).invoke(TASK).text)


def turns():
    assert model().invoke(TURNS).usage_metadata["input_tokens"] == TURNS_TOKENS


def errors():
    with refused(openai.NotFoundError, NOBODY, "model_not_found"):
        model(model=NOBODY).invoke(TASK)
    with refused(openai.BadRequestError, "context_length_exceeded"):
        model().invoke(TOO_LONG)
    if KEY != "none":
        with refused(openai.AuthenticationError, "invalid_api_key"):
            model(api_key=WRONG_KEY).invoke(TASK)


def retries():
    assert model(base_url=FLAKY_URL).invoke(TASK).text


def responses():
    writer = model(use_responses_api=True, max_tokens=16)
    answer = writer.invoke(TASK)
    assert answer.text
    chunks = list(writer.stream(TASK))
    assert "".join(chunk.text for chunk in chunks) == answer.text
    counts = [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata]
    assert sum(counts) == answer.usage_metadata["output_tokens"]


def completions():
    assert OpenAI(base_url=URL, api_key=KEY, model=MODEL, max_tokens=12, temperature=0).invoke(TASK)


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
