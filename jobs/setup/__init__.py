"""Set-up of one machine: the environment from its lock, Horovod's wheel, Delta's jars. Standard library only."""
