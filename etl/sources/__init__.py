"""One reader per format. Each returns a manifest: images, labels and splits; `joining/` makes one of several."""
