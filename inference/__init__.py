"""A checkpoint to a measured, quantised, registered model."""
