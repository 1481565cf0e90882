"""Measures how fast the ETL is, and what a kill leaves behind."""
