"""`records.jsonl`, one line per finished run: its checks, and merging experiments."""
