"""A mailbox or table becomes examples. May import data and text."""
