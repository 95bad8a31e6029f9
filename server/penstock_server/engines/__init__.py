"""Engines run batches."""
