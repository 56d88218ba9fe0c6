"""Who is told what a run measures, while it runs: TensorBoard, Weights & Biases, a person."""
