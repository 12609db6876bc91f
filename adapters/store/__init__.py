"""Versions on the disk: what is published, what its names mean, who has it loaded, what changed.

Imports adapters' root only.
"""
