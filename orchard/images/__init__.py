"""Photos and sets of them: decoding, splits, likeness.

Imports `orchard.files`.
"""
