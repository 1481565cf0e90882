"""Files and folders of the command line: read by several processes, answered in their order."""
