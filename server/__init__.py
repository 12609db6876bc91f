"""vLLM's own OpenAI server, with adapters that load on demand from the store."""
