"""Networks as they are served, in torch, before they become graphs."""
