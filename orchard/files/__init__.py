"""Files that appear whole, locks, storage by URL, and readers of what anybody may have written.

Imports `orchard.errors` alone.
"""
