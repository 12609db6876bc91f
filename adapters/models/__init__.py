"""Base models and their adapters: find, validate, promote, export and import. May import store."""
