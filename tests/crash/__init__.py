"""A server that is killed again and again while it takes, reads, computes and writes bulk jobs."""
