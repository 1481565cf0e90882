"""What runs the stages: set-up of the machine, the local pipeline, and the same for clusters. No logic of their own."""
