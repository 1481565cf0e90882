"""Several sources as one: opens them, joins their vocabularies, and makes one manifest of theirs."""
