"""Measurements of tables and sources in an object store."""
