"""Turns a file of emails into a voice: read, check, train a LoRA adapter, validate, publish, evaluate."""

import os

from adapters.settings import silence_telemetry

# Before any module of this package can import a library that would send something, or print over our progress bars.
silence_telemetry()
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
