"""The candidate's files: calibration, familiarity, export, INT8."""
