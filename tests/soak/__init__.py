"""A real server under bounded, random, rude load, with every answer counted: ``python -m tests.soak``."""
