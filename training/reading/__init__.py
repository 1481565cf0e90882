"""From a table's row groups to augmented batches, planned from the Parquet footers."""
