"""Rules about a text: duplicates, personal data, names. Imports no other room."""
