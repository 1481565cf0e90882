"""Makes the candidate's files: calibration, familiarity, export, INT8."""
