"""Base models and what fits them: finding one, validation of an adapter on it, promotion, export and import.

May import store.
"""
