"""Measures how fast a training reads, takes steps and evaluates."""
