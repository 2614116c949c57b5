"""What the tasks are made of. Nothing in here knows Invoke."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
