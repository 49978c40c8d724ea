"""Parts of ``scripts/train_mini.py``: one stage a module, each resumable."""
