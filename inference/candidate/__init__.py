"""From a checkpoint to a candidate for the registry: exported, quantised, measured, judged."""
