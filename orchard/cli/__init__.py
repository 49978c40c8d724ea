"""From a command line and a recipe to a frozen dataclass; terminal output; signals.

Imports `orchard.files` alone; light, since ``--help`` loads it.
"""
