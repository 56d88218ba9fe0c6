"""CLIP: configuration, model, weights, engines and the embedder."""
