"""What every stage agrees on: the row, its pixels, the card, and where a table lies. Imports only conf."""
