"""What each connection and request passes before anything is computed for it: limits, keys, uploads, refusals."""
