"""The folders with the native runtime's data."""

from __future__ import annotations

from collections.abc import Sequence

from switchyard.runtimes.native import plan
from switchyard.runtimes.native.host import Host


class NativeData:
    """See `switchyard.runtimes.runtime.Data`."""

    def __init__(self, host: Host) -> None:
        self.host, self.settings = host, host.settings

    def names(self) -> list[str]:
        """The folders with data."""
        return self.host.existing(
            [
                self.host.postgres.home,
                plan.warehouse(self.settings.root),
                *(plan.Folders(self.settings.root, name).home for name in self.host.orchestrators),
            ],
        )

    def remove(self, names: Sequence[str]) -> None:
        """Delete the folders called ``names`` with all their data."""
        self.host.delete(names)

    def exists(self) -> bool:
        """Whether PostgreSQL was ever started, that is, whether its data folder exists."""
        return self.host.postgres.data.exists()
