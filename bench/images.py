"""The images: their size compared with what they need to contain, and how much an edit rebuilds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.harness import Figure, interleaved, ratio, timed
from bench.rig import Rig
from switchyard.fingerprints import base_images
from switchyard.runtimes.docker import argv

MODEL = "models/staging/shop/stg_shop__orders.sql"
LIST = "find / -xdev -type f -printf '%s\\t%T@\\t%p\\n'"


def measure(rig: Rig, rounds: int) -> Iterator[Figure]:
    """Measure sizes once, and builds in each round; without Docker there are no images."""
    if rig.runtime != "docker":
        return
    bases = list(base_images(rig.settings).values())
    for name in rig.names():
        rig.invoke("build", "--orch", name)
        title, image = rig.orchestrators[name].title, argv.image_name(rig.settings, name)
        layers = {base: _layers(rig, base) for base in bases}
        own = _layers(rig, image)
        # The one with the most layers: one base image may be made from another.
        base = max((base for base in bases if own[: len(layers[base])] == layers[base]), key=lambda base: len(layers[base]))
        needed = size(rig, base) + environment_bytes(_files(rig, image), _files(rig, base))
        yield ratio(f"{title}: image / its base and its environment", [size(rig, image)], [needed])
        build = ("build", "--orch", name)
        found = interleaved(
            rounds,
            {
                "everything": partial(timed, partial(rig.invoke, *build, "--no-cache")),
                "a model": _edited(rig, rig.folder / "dbt_project" / MODEL, "-- {}\n", build),
                "a dependency": _edited(rig, _lock(rig, name), "# {}\n", build),
            },
        )
        yield ratio(f"{title}: build after one model / of everything", found["a model"], found["everything"], 0.05)
        yield ratio(f"{title}: build after one dependency / of everything", found["a dependency"], found["everything"])


def _lock(rig: Rig, name: str) -> Path:
    """A lock from which the image is built."""
    folder = rig.folder / "docker" / name
    return next(path for path in (folder / "requirements-image.txt", folder / "requirements.txt") if path.exists())


def environment_bytes(files: dict[str, tuple[str, int]], base: dict[str, tuple[str, int]]) -> int:
    """Bytes of installed packages among ``files`` that are missing or different in ``base``.

    Args:
        files: the files of an image: time of change and size, by path.
        base: the same for its base image.
    """
    return sum(size for path, (at, size) in files.items() if "site-packages" in path and base.get(path) != (at, size))


def _edited(rig: Rig, path: Path, line: str, build: tuple[str, ...]) -> Callable[[], float]:
    def measured() -> float:
        # The time makes each edit new: otherwise Docker would use its cache of an earlier benchmark.
        path.write_text(path.read_text(encoding="utf-8") + line.format(time.time_ns()), encoding="utf-8")
        return timed(lambda: rig.invoke(*build))

    return measured


def size(rig: Rig, image: str) -> int:
    """Bytes of an image."""
    return int(rig.command(["docker", "image", "inspect", "--format", "{{.Size}}", image]))


def _layers(rig: Rig, image: str) -> list[str]:
    """The image's layers; empty if there is no such image here."""
    argv = ["docker", "image", "inspect", "--format", '{{join .RootFS.Layers " "}}', image]
    return rig.driver.runner.ask(argv).stdout.split()


def _files(rig: Rig, image: str) -> dict[str, tuple[str, int]]:
    argv = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", image, "-c", LIST]
    rows = (line.split("\t", 2) for line in rig.command(argv).splitlines())
    return {path: (at, int(size)) for size, at, path in rows}
