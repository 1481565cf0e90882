"""Images and label files to patient-split shards: a Delta table, its quarantine table and its dataset card."""
