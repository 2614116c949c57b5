"""Records each heartbeat that a Celery worker sends to the broker. The health check of its container checks how old the last one is.

`celery inspect ping` would check the same, but starts a Python process with all of Celery each time.
"""

from pathlib import Path

from celery.signals import heartbeat_sent

FILE = Path("/tmp/celery-alive")


def note(**_: object) -> None:
    """Record that a heartbeat was sent."""
    FILE.touch()


heartbeat_sent.connect(note)
