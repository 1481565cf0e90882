"""DICOM files: their elements, their pixels as greys that are to be shown, and what they say about the film."""
