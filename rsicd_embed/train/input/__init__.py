"""What a training run reads: images, captions, their order, views and batches."""
