"""Base models and their adapters: find a base model, validate an adapter on it, promote, export and import.

May import store.
"""
