"""Checks and measures the training step on one GPU. Needs torch, torchvision, numpy, pyarrow and pandas alone."""
