"""The environments of the native runtime, in which an orchestrator's processes run, and PostgreSQL's programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from switchyard import certificates, environments
from switchyard.runtimes.native import plan
from switchyard.runtimes.native.machine import Machine
from switchyard.runtimes.runtime import POSTGRES, OnLine


class NativeImages:
    """See `switchyard.runtimes.runtime.Images`."""

    kind, in_use = "environment", True
    cache_note = "  uv keeps its cache, of other projects too: uv cache prune deletes it."

    def __init__(self, machine: Machine) -> None:
        self.machine, self.settings, self.runner = machine, machine.settings, machine.runner

    def build(self, names: Iterable[str], *, cache: bool = True, on_line: OnLine) -> None:
        """Install PostgreSQL, or make the environments of an orchestrator."""
        certificates.check(self.settings.root)
        if not self.runner.dry:
            self.machine.base.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            if name == POSTGRES:
                if not cache or not self.machine.postgres.current():
                    self.machine.postgres.build(cache=cache, on_line=on_line)
            else:
                target = self.machine.require(self.machine.orchestrators[name])
                environments.build(
                    self.settings, target, self.machine.project, self.runner, self.machine.environ, cache=cache, on_line=on_line
                )

    def outdated(self, names: Iterable[str], *, baked: bool) -> list[str]:
        """Those of ``names`` that are not installed, or were from other files than the checkout holds now."""
        return [
            name
            for name in names
            if not (
                self.machine.postgres.current()
                if name == POSTGRES
                else environments.current(self.settings, name, self.machine.readable_project())
            )
        ]

    def names(self) -> list[str]:
        """The folders that hold environments and programs."""
        made = [plan.Folders(self.settings.root, name).installed for name in (POSTGRES, *self.machine.orchestrators)]
        return self.machine.existing(
            [*made, self.machine.base / "home", *([self.machine.postgres.programs] if self.machine.postgres.account else [])]
        )

    def remove(self, names: Sequence[str]) -> None:
        """Delete the folders called ``names``."""
        self.machine.delete(names)
