"""CLIP: shape, model, weights, directory, embedder."""
