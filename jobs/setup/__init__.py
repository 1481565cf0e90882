"""Sets up a machine: the environment from its lock, Horovod's wheel, Delta's jars. Uses the standard library only."""
