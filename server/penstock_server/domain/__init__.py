"""The vocabulary every other package shares. No I/O, no clocks, no third-party services."""
