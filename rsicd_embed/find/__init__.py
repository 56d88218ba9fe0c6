"""Where in an image a text is: patches, their probabilities, a heat map and an overlay."""
