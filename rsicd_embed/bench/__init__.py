"""Benchmarks of speed and memory usage."""
