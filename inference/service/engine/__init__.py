"""What computes: decoding processes, batches, the model in use and the watch for its successor."""
