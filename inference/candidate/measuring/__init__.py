"""The candidate's numbers on the test split: AUROC, localisation, speed, memory, a simple baseline."""
