"""GAN and VAE: the small generators of the literature, one for all classes, trained from nothing."""
