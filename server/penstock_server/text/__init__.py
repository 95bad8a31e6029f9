"""Texts to token rows, over the kernels."""
