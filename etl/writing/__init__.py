"""From a manifest to a committed version of the table: what has changed, its shards, the checks, the commit."""
