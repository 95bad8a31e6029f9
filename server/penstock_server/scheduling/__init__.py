"""Queues, cost and plans: synchronous, deterministic, time is an argument."""
