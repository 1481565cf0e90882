"""One reader per format of label file or folder. Each returns a manifest: the images, their labels and splits."""
