"""The processes of a training: which there are, how they speak, and what happens when one is lost or stopped."""
