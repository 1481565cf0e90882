"""Measures how the REST service handles load, damaged files and a minimal environment."""
