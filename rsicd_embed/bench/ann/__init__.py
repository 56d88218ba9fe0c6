"""Vector stores timed on the same vectors, each beside its library called directly."""
