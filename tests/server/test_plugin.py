"""Our layers and routes in vLLM's own application, where no engine is needed for the answer."""

import json
import subprocess
import sys

import pytest

from adapters.models.base_models import BaseModel
from tests.server.without_engine import REQUESTS


@pytest.fixture(scope="module")
def answers(base_model: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    command = [sys.executable, "-m", "tests.server.without_engine", str(base_model.path)]
    store = tmp_path_factory.mktemp("store")
    done = subprocess.run([*command, str(store)], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return [(status, body) for status, body in json.loads(done.stdout.splitlines()[-1])]


def test_each_request_is_answered_in_openais_shape(answers: list[tuple[int, str]]):
    assert [status for status, _ in answers] == [200, 200, 404, 404, 404, 400, 400]
    codes = [json.loads(body)["error"]["code"] for _, body in answers[2:]]
    assert codes == ["model_not_found", "not_found", "model_not_found", "invalid_request", "invalid_request"]


def test_vllms_own_checks_name_the_field_without_its_value(answers: list[tuple[int, str]]):
    params = [json.loads(body)["error"]["param"] for _, body in answers[-2:]]
    assert params == ["stop", "temperature"]
    assert "temperature: Input should be a valid number" in answers[-1][1]
    assert "canary" not in answers[-1][1]
    assert "canary" in json.dumps(REQUESTS)
