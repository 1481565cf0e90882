"""What every stage agrees on: row, pixels, card, names of findings, and where a table lies. Imports only conf."""
