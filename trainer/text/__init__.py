"""What can be told of a text by rule: duplicates, personal data, names.

Imports no other room.
"""
