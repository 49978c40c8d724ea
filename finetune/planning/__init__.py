"""What a run is going to do, and what would stop it: found out before any weight is loaded.

The command calls `plan`; nothing here trains.
"""
