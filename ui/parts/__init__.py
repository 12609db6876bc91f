"""What pages are made of.

Knows no page.
"""
