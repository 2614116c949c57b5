"""The native runtime's checks before a start."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import psutil

from switchyard import certificates, checks, ports, python_packages
from switchyard import project as projects
from switchyard.checks import Check
from switchyard.errors import BadUsage, StackError
from switchyard.orchestrators import Orchestrator
from switchyard.runtimes import both
from switchyard.runtimes.native.host import Host
from switchyard.runtimes.native.images import NativeImages
from switchyard.runtimes.runtime import POSTGRES


class NativeChecks:
    """See `switchyard.runtimes.runtime.Checks`."""

    def __init__(self, host: Host, images: NativeImages) -> None:
        self.host, self.images, self.settings = host, images, host.settings

    def of(self, targets: Sequence[Orchestrator]) -> list[Check]:
        """The checks before one of ``targets`` is started."""
        ports_of = [("POSTGRES_PORT", None), *((target.ui_port, target) for target in targets)]
        return [
            Check("Account", checks.account),
            Check("Folders", partial(checks.folders, self.settings.root, projects.folder(self.settings), native=True)),
            Check("dbt project", lambda: python_packages.describe(self.settings, self.host.project)),
            *(Check(target.title, partial(self._able, target)) for target in targets),
            *(Check(key, partial(self._port, key, target)) for key, target in ports_of),
            Check(f"{certificates.FOLDER}/", partial(certificates.check, self.settings.root)),
            *(Check("Memory", partial(self._memory, target)) for target in targets),
            *(Check("Disk", partial(checks.disk, place)) for place in dict.fromkeys([self.host.base, self.host.postgres.home])),
            Check("PostgreSQL", self._programs),
            Check("Data", self.host.postgres.require_major),
            Check("Sizes", self.host.postgres.sizes, advice=True),
            Check("Environments", partial(self._environments, targets), advice=True),
            Check("Leftovers", self._leftovers, advice=True),
        ]

    def preflight(self, target: Orchestrator, *, baked: bool) -> None:
        """Run the checks that are not advice, before anything that runs is touched.

        Raises:
            BadUsage: ``baked`` without an image.
            BadConfiguration: a file in ``certs/`` is not a certificate.
            EngineMissing: the orchestrator cannot run without Docker.
            PortInUse: another program holds a port of the target.
            OutOfMemory: there is too little memory for the target.
            NoSpace: a disk is nearly full.
            IncompatibleData: the data folder has another PostgreSQL version.
        """
        if baked:
            raise BadUsage(
                "--baked needs an image, and without Docker there is none.",
                "The dbt project is read in place.",
                f"invoke up --orch {target.name}",
            )
        for check in self.of([target]):
            if not check.advice:
                check.run()

    def _able(self, target: Orchestrator) -> str:
        self.host.require(target)
        return "runs here without Docker"

    def _programs(self) -> str:
        if self.host.postgres.server():
            return "runs"
        if not self.host.postgres.current():
            return "not installed yet"
        self.host.postgres.require_programs()
        return "can be started"

    def _port(self, key: str, target: Orchestrator | None) -> str:
        port = self.settings.port(key)
        if ports.free(port):
            return f"{port} is free"
        if target is None:
            # Not by the listening process: for a moment that may be a process that the server has forked for the check's own connection.
            ours = self.host.postgres.server() is not None and self.host.postgres.port() == port
        elif holder := ports.holder(port):
            ours = holder.pid in {
                process.pid for record in self.host.processes.records() for process in self.host.processes.members(record)
            }
        else:
            # The system does not show the process. The port is ours if the target is active and was started on it.
            started, _ = self.settings.as_started()
            ours = self.host.active() == target.name and started.port(key) == port
        if ours:
            return f"{port} is held by this stack"
        return both.taken_port(key, self.settings, self.host.environ, checks.publishers(port, self.host.runner))

    def _memory(self, target: Orchestrator) -> str:
        name = self.host.active()
        active = self.host.orchestrators[name] if name else None
        return both.memory(target, 0, active.memory if active else 0, psutil.virtual_memory().available)

    def _environments(self, targets: Sequence[Orchestrator]) -> str:
        return both.next_build(self.images.outdated([POSTGRES, *(target.name for target in targets)], baked=False), "makes")

    def _leftovers(self) -> str:
        dead = [record.service for record in self.host.processes.records() if self.host.processes.root(record) is None]
        dead += [POSTGRES] if self.host.postgres.crashed() else []
        if dead:
            raise StackError(f"Left over from a crash or a restart of the machine: {', '.join(dead)}.", "", "invoke up, or: invoke down")
        return "none"
