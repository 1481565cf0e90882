"""A version of the table to a trained checkpoint and its MLflow run, on one process or many."""
