"""How the REST service bears load, damaged files and a bare machine."""
