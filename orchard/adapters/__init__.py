"""LoRA files: reading and writing, the dialects of other tools, loading into a pipeline."""
