"""The processes of a training: their ranks, how they communicate, and what happens if one is lost or stopped."""
