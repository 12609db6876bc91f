"""Versions on the disk: publish, resolve and promote them; which server has which loaded; who changed what.

Imports adapters' root only.
"""
