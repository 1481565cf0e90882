"""Runs work on Spark's workers. The only folder that imports pyspark."""
