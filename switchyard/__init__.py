"""The code behind the tasks. Nothing in here depends on Invoke."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
