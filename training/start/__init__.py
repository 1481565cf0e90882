"""What must be right before the first step: table, settings, network, starting weights, saved state."""
