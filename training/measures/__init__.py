"""Metrics, intervals, calibration and subgroups, computed from plain arrays. No torch, no files; imports only conf."""
