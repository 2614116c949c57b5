"""The volumes of the Docker runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.engine import Engine, is_others


class DockerData:
    """See `switchyard.runtimes.runtime.Data`."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.settings, self.runner = engine, engine.settings, engine.runner

    def names(self) -> list[str]:
        """The names of the stack's volumes."""
        return self.engine.volumes()

    def remove(self, names: Sequence[str]) -> None:
        """Delete the volumes called ``names`` with all their data."""
        if names:
            self.engine.checked(self.runner.change(["docker", "volume", "rm", *names]))
        if not self.runner.dry and not self.exists():
            self._note.unlink(missing_ok=True)

    def noted(self) -> bool:
        """Whether a start has recorded that the data is in a volume; nothing else shows this while the engine is stopped."""
        return self._note.exists()

    @property
    def _note(self) -> Path:
        return self.settings.root / ".stack" / "data-in-docker"

    def exists(self) -> bool:
        """Whether PostgreSQL was ever started, that is, whether its volume exists."""
        folder = self.engine.volume_owner()
        return folder is not None and not is_others(self.settings.root, folder)

    def make(self) -> None:
        """Create the volume if it does not exist, and record that the data is in it."""
        if not self.exists():
            self.engine.checked(self.runner.change(argv.volume(self.settings)))
        if not self.runner.dry:
            self._note.touch()
