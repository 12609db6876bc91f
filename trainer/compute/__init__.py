"""Tensors and tokens, no emails: devices, processes, faster steps on a CPU. Imports no other room."""
