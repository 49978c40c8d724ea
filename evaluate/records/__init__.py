"""`records.jsonl`: one line a finished run; its checks, and several experiments as one."""
