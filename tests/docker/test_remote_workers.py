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
from ..stacks import slow_model, unavailable, wait_until
from .test_release import CONFIG, again, registry, release  # noqa: F401  (fixtures)

pytestmark = pytest.mark.long
SECONDS = 20  # how long the model runs, at which the test looks meanwhile
SLOW = runs.SLOW.format(SECONDS)
HERE, THERE = "10.213.77.1", "10.213.77.2"
POOL = "10.214.0.0/16"  # the overlay network's addresses
WORKER = {"airflow": "airflow-worker", "dagster": "dagster-worker", "prefect": "prefect-worker"}


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


@pytest.fixture(scope="module")
def machine(tmp_path_factory, registry) -> Iterator[Machine]:  # noqa: F811
    """The second machine, in the same swarm and with the same registry."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("dockerd"):
        unavailable("a second engine needs root on Linux, and dockerd")
    if root("docker", "info", "--format", "{{.Swarm.LocalNodeState}}").strip() != "inactive":
        unavailable("this engine is in a swarm already")
    made = Machine(f"switchyard-{os.getpid()}", tmp_path_factory.mktemp("machine"))
    (made.folder / "registry.yml").write_text(CONFIG.format(folder=registry.folder, port=registry.address.partition(":")[2]))
    with contextlib.ExitStack() as undo:
        root("ip", "netns", "add", made.namespace)
        undo.callback(root, "ip", "netns", "del", made.namespace)
        root("ip", "link", "add", "switchyard0", "type", "veth", "peer", "name", "eth0", "netns", made.namespace)
        root("ip", "addr", "add", f"{HERE}/30", "dev", "switchyard0")
        root("ip", "link", "set", "switchyard0", "up")
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
            process = subprocess.Popen(["ip", "netns", "exec", made.namespace, *words], stdout=log, stderr=log)
            undo.callback(process.wait)
            undo.callback(process.terminate)
        wait_until(lambda: made.run("docker", "version", "--format", "{{.Server.Version}}", code=None).strip(), 60)
        root("docker", "swarm", "init", "--advertise-addr", HERE, "--listen-addr", HERE, "--default-addr-pool", POOL)
        undo.callback(root, "docker", "swarm", "leave", "--force")
        token = root("docker", "swarm", "join-token", "--quiet", "worker").strip()
        made.run("docker", "swarm", "join", "--advertise-addr", THERE, "--token", token, f"{HERE}:2377")
        undo.callback(made.run, "docker", "swarm", "leave", "--force", code=None)
        yield made


@pytest.mark.parametrize("name", WORKER)
def test_a_run_on_another_machine_has_the_same_result(stack, reference, registry, machine, again, tmp_path, name) -> None:  # noqa: F811
    model = stack.folder / "dbt_project" / "models" / "slow.sql"
    model.write_text(slow_model(SECONDS))
    stack.run(["git", "add", "."])
    stack.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "slow"])
    stack.invoke("down", "--force")
    release(stack, registry, f"far-{name}", orch=name)
    assign(stack.folder, "NETWORK", "overlay")
    folder = tmp_path / "workers"
    try:
        stack.invoke("up", "--release", f"releases/far-{name}/release.json", "--orch", name, "--workers", "1")
        assert "docker compose up -d --wait" in stack.invoke("worker-env", "--out", str(folder)).stdout
        machine.run("docker", "compose", "up", "-d", "--wait", cwd=folder)
        (local,) = stack.ours("ps", "{{.Names}}", "--filter", f"label=com.docker.compose.service={WORKER[name]}")
        root("docker", "stop", local)  # now the other machine's worker is the only one
        run = typed(stack, "run")
        wait_until(lambda: run.poll() is not None or stack.sql(SLOW) == "1", 240)
        assert run.poll() is None, ended(run)
        (elsewhere,) = stack.status()["elsewhere"]
        assert machine.run("docker", "ps", "--quiet", "--filter", f"id={elsewhere['worker']}")
        code, out = ended(run)
        assert code == 0, out
        assert {mart: rows for mart, rows in stack.hashes().items() if mart != "slow"} == reference
    finally:
        if folder.exists():
            machine.run("docker", "compose", "down", "--volumes", cwd=folder, code=None)
        stack.invoke("down", "--force")
        assign(stack.folder, "NETWORK", "bridge")
        assign(stack.folder, "WORKERS", "0")
