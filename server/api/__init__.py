"""A request on its way in and out: who asks, what, which version, and how an answer looks. May import engine."""
