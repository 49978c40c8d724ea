"""What a run will do and what would stop it, found out before any weight is loaded.

`plan.make` is called by the command; nothing here trains.
"""
