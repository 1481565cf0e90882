"""From a manifest to a committed version of the table: compare, write shards, check, commit."""
