"""Turns a file of emails into a voice: read, check, train a LoRA adapter, validate, publish, evaluate."""

from adapters.settings import silence_telemetry

# Before any module of this package can import a library that would send something.
silence_telemetry()
