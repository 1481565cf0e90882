"""One reader per format of label file or folder; each gives a manifest: the images, their labels and splits."""
