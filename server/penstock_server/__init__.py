"""Penstock: one gRPC server for live and bulk NLP inference."""
