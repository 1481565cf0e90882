"""External testing: a registered model on labelled films of another origin than its training's."""
