"""The reporting sheet of a model: the items of CLAIM 2024 and TRIPOD+AI, answered from its card or left to a person.

Imports no large library, because packing a model writes it too.
"""
