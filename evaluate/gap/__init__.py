"""How far synthetic images lie from real ones, in the features of a network."""
