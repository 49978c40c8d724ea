"""Arms and their runs: planned, checked for leaks, trained and scored.

`sweep` runs them, `runner` makes one record of one run.
"""
