"""Settings, workspace layout and the one error class that means "your input, not our bug"."""
