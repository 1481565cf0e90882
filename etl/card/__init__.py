"""The dataset card: its counts and the page that shows them."""
