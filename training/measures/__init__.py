"""Metrics, intervals, calibration and subgroups: arrays in, numbers out. No torch, no files; imports only conf."""
