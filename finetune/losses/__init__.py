"""How well an adapter knows single photos: ``python -m finetune.losses``."""
