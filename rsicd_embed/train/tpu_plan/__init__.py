"""Plans a training step for TPUs, without a TPU: memory, FLOPs and communication."""
