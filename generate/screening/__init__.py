"""Which sampled images are kept: screens of one image, and duplicates among all of a class."""
