"""Measurements of a running server; see docs/benchmarks."""
