"""The way from the settings to a finished training: what must be right before the first step, then the stages."""
