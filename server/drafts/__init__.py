"""Several drafts for one request, checked, and the best one answered; may import `engine`, `metrics` and `cpu`.

It does not know keys, limits or which version is meant: the gate (server/api) has settled these before.
"""
