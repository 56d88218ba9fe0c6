"""The input pipeline: images, captions, their order, views and batches."""
