"""One film: its pixels as the model wants them, what the model's answers mean, its heat maps."""
