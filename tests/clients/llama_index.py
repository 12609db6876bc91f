"""LlamaIndex, through OpenAILike: chat, and the completions that it takes unless it is told that it may chat."""

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

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

MESSAGES = [ChatMessage(role="user", content=TASK)]


def model(**options):
    usual = {"model": MODEL, "api_base": URL, "api_key": KEY, "is_chat_model": True, "max_tokens": 12, "temperature": 0}
    return OpenAILike(**usual | options)


def weather(city: str) -> str:
    """The weather of a city."""
    return city


def chat():
    assert model().chat(MESSAGES).message.content


def stream():
    writer = model(additional_kwargs={"stream_options": {"include_usage": True}})
    chunks = list(writer.stream_chat(MESSAGES))
    assert "".join(chunk.delta or "" for chunk in chunks) == chunks[-1].message.content != ""
    assert chunks[-1].raw.usage.completion_tokens


def tools():
    with refused(openai.BadRequestError, "tools"):
        model(is_function_calling_model=True).chat_with_tools([FunctionTool.from_defaults(weather)], TASK)
    return "400"


def json_schema():
    writer = model(should_use_structured_outputs=True, max_tokens=800, temperature=1, additional_kwargs={"seed": 1})
    assert isinstance(writer.structured_predict(Email, PromptTemplate(TASK)), Email)


def logprobs():
    answer = model(logprobs=True, top_logprobs=2).chat(MESSAGES)
    assert len(answer.logprobs) == answer.raw.usage.completion_tokens
    assert all(choice.logprob <= 0 for choices in answer.logprobs for choice in choices)
    assert all(len(choices) == 2 for choices in answer.logprobs)


def seed():
    follows_the_seed(lambda seed: model(temperature=1).chat(MESSAGES, seed=seed).message.content)


def stop():
    stops_there(lambda stop: model().chat(MESSAGES, stop=stop).message.content)


def turns():
    messages = [ChatMessage(role=role, content=content) for role, content in TURNS]
    assert model().chat(messages).raw.usage.prompt_tokens == TURNS_TOKENS


def errors():
    with refused(openai.NotFoundError, NOBODY, "model_not_found"):
        model(model=NOBODY).chat(MESSAGES)
    with refused(openai.BadRequestError, "context_length_exceeded"):
        model().chat([ChatMessage(role="user", content=TOO_LONG)])
    if KEY != "none":
        with refused(openai.AuthenticationError, "invalid_api_key"):
            model(api_key=WRONG_KEY).chat(MESSAGES)


def retries():
    assert model(api_base=FLAKY_URL).chat(MESSAGES).message.content


def completions():
    writer = model(is_chat_model=False)
    text = writer.complete(TASK).text
    assert text
    assert "".join(chunk.delta for chunk in writer.stream_complete(TASK)) == text
    assert writer.chat(MESSAGES).message.content


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
    completions=completions,
)
