"""Workers on another machine: a separate engine in a separate network, which has only the files of `invoke worker-env`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from switchyard.settings import assign

from .. import runs
from ..interruptions import ended, typed
from ..small.test_airflow import AirflowPage
from ..stacks import MARTS, slow_model, unavailable, wait_until
from .test_release import CONFIG, registry, release  # noqa: F401  (a fixture)
from .test_workers import WORKER, ends

pytestmark = pytest.mark.long
SECONDS = 60  # how long the model runs; meanwhile a worker starts
SLOW = runs.SLOW.format(SECONDS)
HERE, THERE = "10.213.77.1", "10.213.77.2"
CABLE = "switchyard0"  # this machine's end of it
POOL = "10.214.0.0/16"  # the overlay network's addresses


@dataclass(frozen=True)
class Machine:
    """A second machine, as far as Docker and the network are concerned."""

    namespace: str
    folder: Path

    def run(self, *words: str, cwd: Path | None = None, code: int | None = 0) -> str:
        """Run a command on it; returns its output."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "DOCKER_HOST": f"unix://{self.folder}/docker.sock"}
        done = subprocess.run(["ip", "netns", "exec", self.namespace, *words], cwd=cwd, env=env, capture_output=True, text=True)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout


def root(*words: str) -> str:
    """Run a command on this machine; returns its output."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Far:
    """An orchestrator, and the machine of its worker."""

    name: str
    machine: Machine
    local: str  # the container of the first machine's worker, which is stopped

    def container(self) -> str:
        """The full id of the worker's container."""
        return self.machine.run("docker", "ps", "--quiet", "--no-trunc").strip()


def under_way(stack) -> subprocess.Popen[str]:
    """A run whose last model PostgreSQL is executing."""
    run = typed(stack, "run")
    wait_until(lambda: run.poll() is not None or stack.sql(SLOW) == "1", 240)
    assert run.poll() is None, ended(run)
    return run


@contextlib.contextmanager
def beside_another(stack, far: Far) -> Iterator[subprocess.Popen[str]]:
    """A run on the other machine; then the first machine's worker starts as well."""
    run = under_way(stack)
    root("docker", "start", far.local)
    try:
        health = ["docker", "inspect", "--format", "{{.State.Health.Status}}", far.local]
        wait_until(lambda: root(*health).strip() == "healthy", 60)
        assert stack.sql(SLOW) == "1"
        yield run
        stack.invoke("run")
        assert marts(stack) == MARTS
    finally:
        root("docker", "stop", far.local)


def restore(stack, commit: str) -> None:
    """Bring back the stack of the other tests: on this machine, from the mounted shop."""
    assign(stack.folder, "NETWORK", "bridge")
    assign(stack.folder, "WORKERS", "0")
    stack.run(["git", "reset", "--quiet", "--hard", commit])
    shutil.rmtree(stack.folder / "releases", ignore_errors=True)
    stack.invoke("use", "shop")
    stack.invoke("up", "--orch", "dagster")


@pytest.fixture(scope="module")
def machine(tmp_path_factory, stack, registry) -> Iterator[Machine]:  # noqa: F811
    """The second machine, in the same swarm and with the same registry."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("dockerd"):
        unavailable("a second engine needs root on Linux, and dockerd")
    if root("docker", "info", "--format", "{{.Swarm.LocalNodeState}}").strip() != "inactive":
        unavailable("this engine is in a swarm already")
    made = Machine(f"switchyard-{os.getpid()}", tmp_path_factory.mktemp("machine"))
    (made.folder / "registry.yml").write_text(CONFIG.format(folder=registry.folder, port=registry.address.partition(":")[2]))
    groups = tmp_path_factory.mktemp("cgroup")  # the control groups, which `ip netns exec` hides with the rest of /sys
    with contextlib.ExitStack() as undo:
        undo.callback(restore, stack, stack.run(["git", "rev-parse", "HEAD"]).stdout.strip())
        root("ip", "netns", "add", made.namespace)
        undo.callback(root, "ip", "netns", "del", made.namespace)
        root("ip", "link", "add", CABLE, "type", "veth", "peer", "name", "eth0", "netns", made.namespace)
        root("ip", "addr", "add", f"{HERE}/30", "dev", CABLE)
        root("ip", "link", "set", CABLE, "up")
        for words in ("addr add {}/30 dev eth0", "link set eth0 up", "link set lo up", "route add default via {}"):
            made.run("ip", *words.format(HERE if "via" in words else THERE).split())
        for words in (
            ["docker-registry", "serve", str(made.folder / "registry.yml")],
            [
                *("dockerd", "--data-root", f"{made.folder}/data", "--exec-root", f"{made.folder}/exec"),
                *("--pidfile", f"{made.folder}/pid", "--host", f"unix://{made.folder}/docker.sock"),
            ],
        ):
            log = undo.enter_context((made.folder / f"{words[0]}.log").open("w"))
            inside = ["ip", "netns", "exec", made.namespace, "sh", "-ec", f'mount --rbind {groups} /sys/fs/cgroup; exec "$@"', "sh", *words]
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-ec", f'mount --rbind /sys/fs/cgroup {groups}; exec "$@"', "sh", *inside],
                stdout=log,
                stderr=log,
            )
            undo.callback(process.wait)
            undo.callback(process.terminate)
        wait_until(lambda: made.run("docker", "version", "--format", "{{.Server.Version}}", code=None).strip(), 60)
        root("docker", "swarm", "init", "--advertise-addr", HERE, "--listen-addr", HERE, "--default-addr-pool", POOL)
        undo.callback(root, "docker", "swarm", "leave", "--force")
        token = root("docker", "swarm", "join-token", "--quiet", "worker").strip()
        made.run("docker", "swarm", "join", "--advertise-addr", THERE, "--token", token, f"{HERE}:2377")
        undo.callback(made.run, "docker", "swarm", "leave", "--force", code=None)
        yield made


@pytest.fixture(scope="module", params=WORKER)
def far(request, stack, registry, machine, tmp_path_factory) -> Iterator[Far]:  # noqa: F811
    """An orchestrator whose only worker is on the other machine."""
    name, folder = request.param, tmp_path_factory.mktemp("far") / "workers"
    (stack.folder / "dbt_project" / "models" / "slow.sql").write_text(slow_model(SECONDS))
    stack.run(["git", "add", "."])
    stack.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--allow-empty", "--message", "slow"])
    stack.invoke("down", "--force")
    stack.invoke("use", "shop")  # leaves the release of the orchestrator before
    release(stack, registry, f"far-{name}", orch=name)
    assign(stack.folder, "NETWORK", "overlay")
    try:
        stack.invoke("up", "--release", f"releases/far-{name}/release.json", "--orch", name, "--workers", "1")
        assert "docker compose up -d --wait" in stack.invoke("worker-env", "--out", str(folder)).stdout
        machine.run("docker", "compose", "up", "-d", "--wait", cwd=folder)
        (local,) = stack.ours("ps", "{{.Names}}", "--filter", f"label=com.docker.compose.service={WORKER[name]}")
        root("docker", "stop", local)
        yield Far(name, machine, local)
    finally:
        if folder.exists():
            machine.run("docker", "compose", "down", "--volumes", cwd=folder, code=None)
        stack.invoke("down", "--force")


def marts(stack) -> dict[str, tuple[int, str]]:
    """Those that every project of the shop has."""
    return {mart: rows for mart, rows in stack.hashes().items() if mart != "slow"}


def test_a_run_on_another_machine_has_the_same_result(stack, far) -> None:
    run = under_way(stack)
    (elsewhere,) = stack.status()["elsewhere"]
    assert elsewhere["worker"] in far.container()
    assert ended(run)[0] == 0
    assert marts(stack) == MARTS
    if far.name == "airflow":
        assert "PASS" in AirflowPage(stack).log("dbt.dbt_producer_watcher")


def test_a_worker_that_is_killed_on_another_machine_leaves_no_run_hanging(stack, far) -> None:
    with beside_another(stack, far) as run:
        far.machine.run("docker", "exec", far.container(), "sh", "-c", "kill -9 -1", code=None)
        ends(stack, run, far.name, SLOW)


def test_a_machine_that_is_cut_off_for_a_while_leaves_no_run_hanging(stack, far) -> None:
    with beside_another(stack, far) as run:
        root("ip", "link", "set", CABLE, "down")
        try:
            ends(stack, run, far.name, SLOW)
        finally:
            root("ip", "link", "set", CABLE, "up")
        health = ["docker", "inspect", "--format", "{{.State.Health.Status}}", far.container()]
        wait_until(lambda: far.machine.run(*health).strip() == "healthy", 180)
