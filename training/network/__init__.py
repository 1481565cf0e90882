"""The networks, their starting weights, and the checkpoint that holds them."""
