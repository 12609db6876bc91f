"""What is left of a log record that may quote somebody."""

import logging
from collections.abc import Iterator

import pytest

from server.engine.redaction import ENGINE, SERVING, install


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    install(SERVING)
    yield
    logging.setLogRecordFactory(before)


def test_wording_and_numbers_stay_and_all_else_becomes_its_type(caplog: pytest.LogCaptureFixture):
    logger = logging.getLogger("vllm.entrypoints.anthropic.serving")
    with caplog.at_level(logging.DEBUG):
        logger.debug("Response %s of %d tokens in %.1f s: %r", "req-canary", 12, 0.5, {"text": "canary"})
        logger.warning("fields %(names)s", {"names": ["canary"]})
        logger.error(ValueError("canary"))
    assert caplog.messages == ["Response <str> of 12 tokens in 0.5 s: '<dict>'", "fields <list>", "<ValueError>"]


def test_an_exception_keeps_its_type_and_frames(caplog: pytest.LogCaptureFixture):
    def broken(said: str) -> None:
        raise ValueError(said)

    try:
        broken("can" + "ary")
    except ValueError as exc:
        logging.getLogger("uvicorn.error").exception("Error in %s", exc)
        logging.getLogger("vllm.v1.engine.async_llm").error("failed", exc_info=exc)
    assert "canary" not in caplog.text
    assert all("in broken" in message for message in caplog.messages)
    assert "Error in <ValueError>\nValueError\n" in caplog.text


def test_other_loggers_say_what_they_say(caplog: pytest.LogCaptureFixture):
    logging.getLogger("vllm.v1.metrics.loggers").warning("Engine %s", "000")
    logging.getLogger("server.engine.claims").warning("the store %s", "/data")
    assert caplog.messages == ["Engine 000", "the store /data"]


def test_the_engine_hides_what_it_dumps_when_it_dies(caplog: pytest.LogCaptureFixture):
    assert "vllm.logging_utils.dump_input".startswith(ENGINE)
    logging.getLogger("vllm.logging_utils.dump_input").error("Dumping scheduler output: %s", "stop=['canary']")
    assert "canary" not in caplog.text
