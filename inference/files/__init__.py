"""Answers for the files and folders of the command line, in their order."""
