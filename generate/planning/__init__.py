"""From options to rows: which image is sampled with which adapter, prompt and seed.

Nothing here loads a weight.
"""
