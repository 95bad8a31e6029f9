"""Jobs past one machine: the same kernels, engine and heads on a Ray cluster."""
