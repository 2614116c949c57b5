"""The runtime without Docker."""
