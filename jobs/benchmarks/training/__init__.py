"""How fast a training reads, steps and measures."""
