"""LoRA arithmetic and loading on a CPU, in vLLM's processes. Imports no other room."""
