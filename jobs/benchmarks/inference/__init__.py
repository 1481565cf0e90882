"""Measures how fast a model is, and how well it recognises images unlike its training data."""
