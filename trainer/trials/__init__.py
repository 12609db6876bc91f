"""Short runs that publish nothing: estimate, sweep, compare-starts.

May import trainer/training and the rooms below it.
"""
