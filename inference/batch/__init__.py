"""A table or a folder scored on the workers of Spark."""
