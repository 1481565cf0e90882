"""Where the lungs are on a film, by a classifier or a network, and the crop to them."""
