"""How good a model is: retrieval, zero-shot classification, probes, and what fine-tuning costs."""
