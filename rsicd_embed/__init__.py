"""Search satellite imagery in plain words: fine-tuned CLIP in JAX, vectors in the store you prefer.

Importing this package imports neither jax nor lancedb.
"""
