"""The parts that compute: decoder processes, batches, the model in use, and the watch for its successor."""
