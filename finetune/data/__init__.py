"""Training images and prompts: selected, encoded by the frozen networks, cached on disk."""
