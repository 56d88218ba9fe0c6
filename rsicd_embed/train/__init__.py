"""Training CLIP on captioned images."""
