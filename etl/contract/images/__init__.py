"""From a file's bytes to grey pixels, the checks of their quality, and the stored squares."""
