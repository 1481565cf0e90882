"""Measures the candidate: AUROC and localisation on the test split, speed, memory, and a simple baseline."""
