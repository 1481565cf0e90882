"""How fast and how sure a model is."""
