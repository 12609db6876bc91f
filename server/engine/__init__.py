"""What vLLM's engine holds: versions loaded, in use, wanted; shutdown; the device. Imports no other room."""
