"""Drives the scheduler and the engines; with api, the only packages that await."""
