"""LiteLLM, which knows servers like this one as `hosted_vllm`."""

import litellm

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

MESSAGES = [{"role": "user", "content": TASK}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def write(model=MODEL, **options):
    where = {"api_base": URL, "api_key": KEY, "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    return litellm.completion(model=f"hosted_vllm/{model}", **where | options)


def text(**options):
    return write(**options).choices[0].message.content


def chat():
    assert text()


def stream():
    chunks = list(write(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text()
    assert chunks[-1].usage.completion_tokens


def tools():
    with refused(litellm.BadRequestError, "tools"):
        write(tools=[WEATHER])
    return "400"


def json_schema():
    Email.model_validate_json(text(response_format=Email, max_tokens=800, temperature=1, seed=1))


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
    with refused(litellm.NotFoundError, NOBODY, "model_not_found"):
        write(NOBODY)
    with refused(litellm.ContextWindowExceededError, "context_length_exceeded"):
        write(messages=[{"role": "user", "content": TOO_LONG}])
    if KEY != "none":
        with refused(litellm.AuthenticationError, "invalid_api_key"):
            write(api_key=WRONG_KEY)


def retries():
    assert text(api_base=FLAKY_URL, num_retries=2)


def responses():
    usual = {"model": f"hosted_vllm/{MODEL}", "api_base": URL, "api_key": KEY, "input": TASK}
    usual |= {"max_output_tokens": 16, "temperature": 0}
    text = litellm.responses(**usual).output[0].content[0].text
    assert text
    events = list(litellm.responses(**usual, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    assert events[-1].response.usage.output_tokens


def completions():
    answer = litellm.text_completion(
        model=f"hosted_vllm/{MODEL}", prompt=TASK, api_base=URL, api_key=KEY, max_tokens=12, temperature=0
    )
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
