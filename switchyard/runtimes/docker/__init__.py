"""The runtime over a Docker engine."""
