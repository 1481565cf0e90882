"""From a checkpoint to a candidate that the gate has judged and the registry has taken."""
