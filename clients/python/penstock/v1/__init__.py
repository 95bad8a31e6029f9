"""Messages and stubs generated from proto/penstock/v1."""
