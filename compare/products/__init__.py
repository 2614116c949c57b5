"""What the comparison knows of each orchestrator: one file for each, by its name."""
