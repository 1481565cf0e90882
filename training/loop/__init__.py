"""The optimisation: steps, loss, learning rate, stages."""
