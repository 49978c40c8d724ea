"""LoRA files: reading and writing, the dialects of other tools, putting them into a pipeline.

Imports `orchard.bases` and what lies below it.
"""
