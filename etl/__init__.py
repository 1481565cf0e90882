"""From files as a source has them to a Delta table of shards with its card."""
