"""Captioners: sentences from the vectors of images, with a mapping network and a decoder."""
