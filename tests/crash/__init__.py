"""A server that is killed, or has a bad disk, while it takes, reads, computes and writes bulk jobs."""
