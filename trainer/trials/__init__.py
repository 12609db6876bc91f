"""Short runs that publish nothing: estimate, sweep, compare-starts. May import training and the rooms below it."""
