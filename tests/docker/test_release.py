"""A release: tested images in a registry, and stacks that run exactly these images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from switchyard import pins, ports
from switchyard.runner import Runner

from ..stacks import MARTS, ROOT, unavailable, wait_until
from .conftest import PROJECT

MODEL = "models/released.sql"
CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Registry(NamedTuple):
    """A registry on this machine, and the folder of its data."""

    address: str
    folder: Path

    def tags(self, image: str) -> list[str]:
        """An image's tags; empty if there is no such image."""
        with urllib.request.urlopen(f"http://{self.address}/v2/_catalog") as answer:
            known = json.load(answer)["repositories"]
        if f"shop/{image}" not in known:
            return []
        with urllib.request.urlopen(f"http://{self.address}/v2/shop/{image}/tags/list") as answer:
            return json.load(answer)["tags"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Iterator[Registry]:
    """Debian's docker-registry, empty."""
    if not shutil.which("docker-registry"):
        unavailable("docker-registry is not installed")
    folder, port = tmp_path_factory.mktemp("registry"), ports.unused()
    (folder / "registry.yml").write_text(CONFIG.format(folder=folder / "data", port=port))
    with subprocess.Popen(
        ["docker-registry", "serve", str(folder / "registry.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: not ports.free(port))
            yield Registry(f"localhost:{port}", folder / "data")
        finally:
            process.terminate()


@pytest.fixture
def again(stack) -> Iterator[None]:
    """Restore the stack after the test: its own images, the shop mounted, and the commit from before."""
    commit = stack.run(["git", "rev-parse", "HEAD"]).stdout.strip()
    yield
    stack.run(["git", "reset", "--quiet", "--hard", commit])
    shutil.rmtree(stack.folder / "releases", ignore_errors=True)
    stack.invoke("down", "--force")
    stack.invoke("use", "shop")
    stack.invoke("up", "--orch", "dagster")


@pytest.fixture
def small(stack, again, tmp_path) -> Path:
    """The small project in its own repository, in use."""
    folder = tmp_path / "small"
    shutil.copytree(ROOT / "tests" / "projects" / "small", folder)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    stack.invoke("down")
    stack.invoke("use", str(folder))
    return folder


def commit(folder: Path, path: str, text: str) -> str:
    """Commit a file of a dbt project; returns the commit."""
    (folder / path).write_text(text)
    for words in (["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", path]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()


def release(
    stack, registry: Registry, tag: str, code: int = 0, orch: str = "dagster", out: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `invoke release`."""
    words = ["--registry", f"{registry.address}/shop", "--tag", tag, "--orch", orch, *(["--out", out] if out else [])]
    return stack.invoke("release", *words, code=code, **env)


def leave(registry: Registry, image: str, revision: str) -> None:
    """Push an empty image with the label of a commit."""
    image = f"{registry.address}/shop/{image}"
    dockerfile = f"FROM scratch\nLABEL org.opencontainers.image.revision={revision}\n"
    subprocess.run(["docker", "build", "--quiet", "--tag", image, "-"], input=dockerfile, text=True, check=True, capture_output=True)
    subprocess.run(["docker", "push", image], check=True, capture_output=True)
    subprocess.run(["docker", "image", "rm", image], check=True, capture_output=True)


def test_a_base_image_is_locked_by_the_digest_that_its_registry_has(registry, tmp_path) -> None:
    image = f"{registry.address}/base/one:1"

    def pushed(version: str) -> str:
        dockerfile = f"FROM scratch\nLABEL version={version}\n"
        subprocess.run(["docker", "build", "--quiet", "--tag", image, "-"], input=dockerfile, text=True, check=True, capture_output=True)
        output = subprocess.run(["docker", "push", image], text=True, check=True, capture_output=True).stdout
        return re.search("digest: (sha256:[0-9a-f]{64})", output)[1]

    def locked(upgrade: str | None) -> str:
        pins.make(tmp_path, Runner({}), upgrade, lambda _: None)
        return (tmp_path / ".env.example").read_text()

    (tmp_path / "versions.toml").write_text(f'[packages]\n[images]\nONE_IMAGE = "{image}"\n[charts]\n')
    (tmp_path / ".env.example").write_text("ONE_IMAGE=another:1\n")
    try:
        first = pushed("first")
        assert locked(None) == f"ONE_IMAGE={image}@{first}\n"
        second = pushed("second")
        assert second != first
        assert locked(None) == f"ONE_IMAGE={image}@{first}\n"
        assert locked("") == f"ONE_IMAGE={image}@{second}\n"
        (tmp_path / "versions.toml").write_text('[packages]\n[images]\nONE_IMAGE = "localhost:1/base/one:2"\n[charts]\n')
        assert locked("") == "ONE_IMAGE=localhost:1/base/one:2\n"
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True)


@pytest.mark.long
def test_a_release_is_tested_pushed_and_runs_without_its_sources(stack, registry, small) -> None:
    own = commit(small, MODEL, "select 1 as released\n")
    head = stack.run(["git", "rev-parse", "HEAD"]).stdout.strip()
    leave(registry, "dagster:taken", "another")
    assert "shop/dagster:taken already" in release(stack, registry, "taken", code=2).stderr
    leave(registry, "dagster:1", head)  # as an interrupted push leaves it
    (small / "new.sql").write_text("select 1")
    assert "new.sql" in release(stack, registry, "dirty", code=2).stderr
    (small / "new.sql").unlink()
    leave(registry, "redis:1", "another")
    first = release(stack, registry, "1", REDIS_IMAGE=f"{registry.address}/shop/redis:1")
    assert "daily and smoke succeeded on the images" in first.stdout
    made = json.loads((stack.folder / "releases" / "1" / "release.json").read_text())
    assert made["commit"] == head
    assert made["project"]["commit"] == own
    assert made["images"].keys() == {"postgres", "dagster"}
    assert re.fullmatch(rf"{registry.address}/shop/redis:1@sha256:[0-9a-f]{{64}}", made["broker"])
    assert (sorted(registry.tags("dagster")), registry.tags("postgres")) == (["1", "taken"], ["1"])
    manifest = json.loads((stack.folder / "releases" / "1" / "manifest.json").read_text())
    assert "model.small.released" in manifest["nodes"]
    assert "has localhost" in release(stack, registry, "1", code=2, out="elsewhere").stderr

    # A change is found by the release's manifest.
    (small / "state").mkdir()
    shutil.copy(stack.folder / "releases" / "1" / "manifest.json", small / "state")
    (small / MODEL).write_text("select 2 as released\n")
    stack.invoke("up", "--orch", "dagster")
    selected = stack.invoke("dbt", "--quiet", "ls", "--select", "+state:modified+", "--state", "state").stdout
    assert selected.split() == ["small.released"]

    # A machine that has only the release file: no image, no project.
    for image in made["images"].values():
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True)
    shutil.rmtree(small)
    up = stack.invoke("up", "--release", "releases/1/release.json", "--orch", "dagster")
    assert "Image for dagster pulled" in up.stdout
    container = stack.container("dagster-code")
    assert container["Config"]["Image"] == made["images"]["dagster"]
    assert [mount["Destination"] for mount in container["Mounts"] if mount["Destination"].startswith("/opt/dbt")] == []
    assert container["Config"]["Labels"]["switchyard.package.dagster"] == made["versions"]["dagster"]["dagster"]
    assert [key for key in stack.container("postgres")["Config"]["Labels"] if key.startswith("switchyard.package.")] == []
    assert "release 1" in stack.invoke("status").stdout
    stack.invoke("run")
    assert stack.sql("select released from released") == "1"
    assert "and its images are never built here" in stack.invoke("build", code=2).stderr
    assert "has no image for prefect" in stack.invoke("switch", "prefect", code=2).stderr
    assert stack.status()["orchestrator"] == "dagster"


@pytest.mark.long
def test_an_older_release_can_be_started_again(stack, registry, small) -> None:
    for tag, value in (("one", 1), ("two", 2)):
        commit(small, MODEL, f"select {value} as released\n")
        release(stack, registry, tag)
    for tag, value in (("two", 2), ("one", 1)):
        stack.invoke("up", "--release", f"releases/{tag}/release.json", "--orch", "dagster")
        stack.invoke("run")
        assert stack.sql("select released from released") == str(value)


@pytest.mark.long
def test_a_release_that_fails_is_not_pushed(stack, registry, small) -> None:
    (small / "tests").mkdir(exist_ok=True)
    commit(small, "tests/never.sql", "select 1 as found\n")
    failed = release(stack, registry, "broken", code=1)
    assert "nothing was pushed" in failed.stderr
    assert "never" in failed.stderr
    commit(small, MODEL, "select {{ no_such_macro() }} as released\n")
    assert "no_such_macro" in release(stack, registry, "broken", code=6).stderr
    assert "broken" not in registry.tags("dagster") + registry.tags("postgres")
    assert not (stack.folder / "releases" / "broken").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["dagster", "prefect", "airflow"])
def test_every_orchestrator_is_released_and_runs_without_this_checkout(stack, registry, again, tmp_path, name) -> None:
    stack.invoke("down", "--force")
    release(stack, registry, name, orch=name)
    file = f"releases/{name}/release.json"
    stack.invoke("up", "--release", file, "--orch", name)
    nodes = outcomes(stack.invoke("run").stdout)
    assert stack.hashes() == MARTS
    stack.invoke("down")
    stack.invoke("eject", name, "--to", "compose", "--out", str(tmp_path / "mine"))
    script = re.search(r"```sh\n(.*?)```", (tmp_path / "mine" / "README.md").read_text(), re.S)[1]
    env = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "DOCKER_HOST")}
    own = {**env, "COMPOSE_PROJECT_NAME": f"{PROJECT}-ejected", **{key: str(port) for key, port in stack.ports.items()}}
    try:
        done = subprocess.run(["bash", "-euc", script], cwd=tmp_path / "mine", env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event": "node"')]
        assert sorted((node["kind"], node["name"], node["status"]) for node in found) == nodes
    finally:
        subprocess.run(["docker", "compose", "down", "--volumes"], cwd=tmp_path / "mine", env=own, check=True, capture_output=True)


def outcomes(output: str) -> list[tuple[str, str, str]]:
    """Kind, name and status of each node in the output of `invoke run`."""
    lines = [line.split() for line in output.splitlines() if line.startswith("  ")]
    return sorted((words[1], words[2], words[0]) for words in lines if len(words) > 3 and words[3].replace(".", "").isdigit())
