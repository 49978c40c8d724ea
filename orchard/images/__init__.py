"""Photos and sets of them: decoding, splits, near-duplicates."""
