"""One stack on a real Docker engine, shared by all tests: built once, from a copy of the checkout that tests may edit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dotenv import dotenv_values

from bench.rig import remove_leftovers
from compare.trial import paused
from switchyard.neighbours import CHECKOUT_LABEL

from ..stacks import MARTS, ROOT, Stack, copy_checkout, unavailable

# Unique to this checkout, so that two checkouts can be tested at the same time.
PROJECT = f"switchyard-test-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"


class DockerStack(Stack):
    """A checkout whose stack runs in containers."""

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder, **{**stand_ins(), **options})

    def container(self, service: str) -> dict:
        """`docker inspect` of a service's container."""
        (name,) = self.ours("ps", "{{.Names}}", "--all", "--filter", f"label=com.docker.compose.service={service}")
        return json.loads(subprocess.check_output(["docker", "inspect", name]))[0]

    def started(self, service: str) -> bool:
        """Whether the service's container runs."""
        return service in self.ours("ps", '{{.Label "com.docker.compose.service"}}')

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Pause every container of the stack for the time of the block."""
        with paused(self.ours("ps", "{{.Names}}")):
            yield

    def orchestrators(self) -> set[str]:
        """The orchestrators whose containers run at this moment."""
        return set(self.ours("ps", '{{.Label "switchyard.orchestrator"}}')) - {""}

    def ask(self, query: str) -> str:
        """The result of a query as PostgreSQL's superuser; for polling, this is faster than `invoke sql` each time."""
        name = f"{self.env['COMPOSE_PROJECT_NAME']}-postgres-1"
        argv = ["docker", "exec", "--user", "postgres", name, "psql", "-XAtqU", "postgres", "-d", "airflow", "-c", query]
        return subprocess.check_output(argv, text=True).strip()

    def leftovers(self) -> list[str]:
        """Every container and network of the stack."""
        return self.ours("ps", "{{.Names}}", "--all") + self.ours("network ls", "{{.Name}}")

    def stored(self) -> list[str]:
        """The name of every volume of the stack, and the id of every image of its checkout."""
        images = ["docker", "image", "ls", "--all", "--quiet", "--filter", f"label={CHECKOUT_LABEL}={self.folder}"]
        return self.ours("volume ls", "{{.Name}}") + subprocess.check_output(images, text=True).split()

    def ours(self, what: str, column: str, *args: str) -> list[str]:
        """A column of `docker ps`, `docker network ls` or `docker volume ls`, for what belongs to this stack."""
        project = f"label=com.docker.compose.project={self.env['COMPOSE_PROJECT_NAME']}"
        return subprocess.check_output(["docker", *what.split(), *args, "--filter", project, "--format", column], text=True).splitlines()


def python_image() -> str:
    """A small image that exists here or can be pulled."""
    known = {**dotenv_values(ROOT / ".env.example"), **stand_ins(), **os.environ}
    return known["PYTHON_IMAGE"]


def stand_ins() -> dict[str, str]:
    """The base images of `tests/standins/build`, by setting, where they exist and the setting has no value."""
    found = {}
    for key, image in dotenv_values(ROOT / ".env.example").items():
        if key.endswith("_IMAGE") and not os.environ.get(key):
            own = f"switchyard-standin/{image.partition('@')[0].rpartition('/')[2]}"
            if subprocess.run(["docker", "image", "inspect", own], capture_output=True).returncode == 0:
                found[key] = own
    return found


def prepared(project: str) -> str:
    """The name of a compose project, after its leftovers were deleted; the test is skipped if no engine answers."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        unavailable("no Docker engine answers")
    remove_leftovers(project)
    return project


@pytest.fixture(scope="package")
def stack(tmp_path_factory, root) -> Iterator[DockerStack]:
    """The stack, built and with Dagster up; everything of it is removed at the end."""
    prepared(PROJECT)
    folder = tmp_path_factory.mktemp("checkout") / "switchyard"
    copy_checkout(root, folder)
    stack = DockerStack(folder, COMPOSE_PROJECT_NAME=PROJECT, RUNTIME="docker")
    try:
        stack.invoke("up", "--orch", "dagster")
        stack.invoke("run")
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="package")
def reference(stack) -> dict[str, tuple[int, str]]:
    """The marts, which are the same in every runtime."""
    assert stack.hashes() == MARTS
    return MARTS


@pytest.fixture(scope="package", params=["dagster", "prefect", "airflow"])
def orchestrator(request, stack) -> str:
    """Each orchestrator in turn, active. The scope is the package, so that the tests of all files that use it share one switch."""
    stack.on(request.param)
    return request.param
