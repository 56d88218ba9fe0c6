"""Whether a training step fits the memory of TPUs, and what it costs, without one."""
