"""Live calls and bulk work on one server: Penstock beside other servers, on the same model file."""
