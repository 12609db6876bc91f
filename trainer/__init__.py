"""Turns a file of emails into a voice: read, check, train a LoRA adapter, validate, publish, evaluate."""
