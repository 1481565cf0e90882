"""How fast the ETL is, and what a kill leaves."""
