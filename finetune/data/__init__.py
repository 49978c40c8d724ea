"""Training images and prompts: chosen, encoded by the frozen networks, cached.

Imports `finetune.models`.
"""
