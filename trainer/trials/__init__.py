"""Short runs that publish nothing: estimate, sweep, compare-starts.

May import training and what is below it.
"""
