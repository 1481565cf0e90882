"""Set-up, the whole pipeline, maintenance and benchmarks: everything that only runs or measures the stages."""
