"""TIFF files: the first page, its tags, its pixels."""
