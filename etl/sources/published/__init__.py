"""One reader per published collection of films, for its label files as their owners publish them."""
