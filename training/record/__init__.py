"""What rank 0 keeps of a training: checkpoints, evaluation, figures, the MLflow run."""
