"""Training of captioners on the vectors of captioned images."""
