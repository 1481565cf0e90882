"""The champion over HTTP: inference/serve.py starts it."""
