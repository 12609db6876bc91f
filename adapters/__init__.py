"""The contract between trainer and server: what an adapter is, where it lives and which base model it belongs to."""
