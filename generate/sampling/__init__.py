"""Rows to images: rounds of tasks through the pipeline.

Call order: `rounds`, `tasks`, `sampler`.
"""
