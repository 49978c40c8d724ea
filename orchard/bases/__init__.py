"""Stable Diffusion pipelines: names, families, checks of their files, text encoders and latents."""
