"""The gRPC edge: servicers, messages, statuses. The only package that imports grpc."""
