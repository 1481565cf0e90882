"""The checks that each connection and request passes before anything is computed: limits, keys, uploads, refusals."""
