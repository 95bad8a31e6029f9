"""The simulator beside the server that it models, on the same arrivals."""
