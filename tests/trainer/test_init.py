import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["compute.decoding", "compute.attention", "training.sft"])
def test_telemetry_is_off_before_a_library_is_imported_whatever_comes_first(module: str):
    asked = f"import trainer.{module}, huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
