"""Many trainings of one table: what each is, and how they compare."""
