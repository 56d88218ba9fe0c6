"""Formats of other projects' checkpoints: tensor names, configs and TorchScript archives."""
