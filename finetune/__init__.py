"""One LoRA adapter a class, trained on real photos."""
