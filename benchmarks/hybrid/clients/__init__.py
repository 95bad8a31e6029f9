"""The process that sends calls to one server. Imports only what that server's environment has."""
