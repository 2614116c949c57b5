"""What the stack runs on: a Docker engine, or processes on this machine."""
