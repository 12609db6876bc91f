"""A request on its way in and out: who asks, what, which version, and how an answer or error looks.

May import engine.
"""
