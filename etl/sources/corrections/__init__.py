"""Labels that people have corrected: reads their tables, and applies them to a manifest."""
