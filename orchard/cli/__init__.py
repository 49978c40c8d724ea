"""From a command line and a recipe to a frozen dataclass; terminal output; signals.

No heavy imports: ``--help`` loads it.
"""
