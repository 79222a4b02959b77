"""The HTTP API, address by address."""
