"""Stable Diffusion pipelines: names, families, what is asked of their files, text encoders and latents.

Imports `orchard.files` and `orchard.hub`.
"""
