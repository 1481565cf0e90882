"""Labels that are probably wrong: finds them in predictions, lists them and shows them for people to judge."""
