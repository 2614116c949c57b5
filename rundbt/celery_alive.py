"""A Celery worker notes each heartbeat that the broker has taken from it; the health check of its container looks how old that is.

`celery inspect ping` would ask the same, but starts a Python with all of Celery for it.
"""

from pathlib import Path

from celery.signals import heartbeat_sent

FILE = Path("/tmp/celery-alive")


def note(**_: object) -> None:
    """Note that one was sent."""
    FILE.touch()


heartbeat_sent.connect(note)
