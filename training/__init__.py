"""From a table to a checkpoint and an MLflow run."""
