"""Generated, radiograph-like images with planted findings, for the demo and the tests."""
