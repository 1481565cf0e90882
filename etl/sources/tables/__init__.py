"""Label tables: their rows, the file, and what the words and numbers in their cells mean."""
