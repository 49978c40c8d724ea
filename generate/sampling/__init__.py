"""Rows to images: rounds of tasks through the pipeline.

The way down is `rounds`, `tasks`, `sampler`.
"""
