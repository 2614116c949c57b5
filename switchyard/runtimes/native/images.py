"""The environments of the native runtime, in which an orchestrator's processes run, and PostgreSQL's programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from switchyard import certificates, environments
from switchyard.runtimes.native import plan
from switchyard.runtimes.native.host import Host
from switchyard.runtimes.runtime import POSTGRES, OnLine


class NativeImages:
    """See `switchyard.runtimes.runtime.Images`."""

    kind, in_use = "environment", True
    cache_note = "  uv keeps its cache, of other projects too: uv cache prune deletes it."

    def __init__(self, host: Host) -> None:
        self.host, self.settings, self.runner = host, host.settings, host.runner

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Install PostgreSQL, or make the environments of an orchestrator."""
        certificates.check(self.settings.root)
        if not self.runner.dry:
            self.host.base.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            if name == POSTGRES:
                if not self.settings["STACK_PG_BIN"] and not (cache and self.host.postgres.current()):
                    self.host.postgres.build(cache=cache, on_line=on_line)
            else:
                target = self.host.require(self.host.orchestrators[name])
                environments.build(self.settings, target, self.host.project, self.runner, self.host.environ, cache=cache, on_line=on_line)

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` that are not installed, or were built from other files than the current ones."""
        return [
            name
            for name in names
            if not (
                self.host.postgres.current()
                if name == POSTGRES
                else environments.current(self.settings, name, self.host.readable_project())
            )
        ]

    def names(self) -> list[str]:
        """The folders with environments and programs."""
        made = [plan.Folders(self.settings.root, name).installed for name in (POSTGRES, *self.host.orchestrators)]
        return self.host.existing([*made, self.host.base / "home", *([self.host.postgres.programs] if self.host.postgres.account else [])])

    def remove(self, names: Sequence[str]) -> None:
        """Delete the folders called ``names``."""
        self.host.delete(names)
