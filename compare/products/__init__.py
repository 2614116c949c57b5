"""What the comparison needs to know about each orchestrator, in a file with its name."""
