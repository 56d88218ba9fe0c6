"""Locating a text in an image: patches, their scores and probabilities, and heat maps."""
