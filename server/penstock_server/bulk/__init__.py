"""Uploads, inputs, results and the journal of jobs: synchronous, on local disk."""
