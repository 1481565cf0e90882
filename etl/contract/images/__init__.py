"""From a file's bytes to its kind, its DICOM tags and its grey pixels, the checks of both, and the stored squares."""
