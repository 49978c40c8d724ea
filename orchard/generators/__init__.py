"""Generators that are trained from nothing: the network that GAN and VAE sample from, and its file."""
