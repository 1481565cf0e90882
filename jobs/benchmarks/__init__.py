"""Measures how fast the stages are and checks what kills and damage do to them; no stage imports it."""

# Python imports this package before a benchmark's own imports, of which isort puts torch before conf. Without it, the
# benchmarks would measure OpenMP threads that spin while they wait, and the commands have threads that sleep.
import conf  # noqa: F401
