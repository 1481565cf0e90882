"""Settings, the command line, the workspace, and the error class for wrong input. Imports no other stage."""
