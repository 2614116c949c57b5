"""Checks of the engine, the memory and logs: which error they report, and what to do on which platform."""

import errno
import os
import socket
import subprocess
from functools import partial

import pytest

from switchyard import checks, diagnosis, ports
from switchyard.errors import BadConfiguration, BadUsage, EngineMissing, IncompatibleData, NoSpace, NotHealthy, OutOfMemory

from ..stacks import copy_checkout

DENIED = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
DEAD = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


def test_each_problem_with_the_engine_has_its_own_next_step_on_each_platform() -> None:
    kinds = {"missing": checks.no_docker, "denied": partial(checks.no_answer, DENIED), "dead": partial(checks.no_answer, DEAD)}
    platforms = ("linux", "darwin", "win32")
    steps = {(kind, name): error(name).next for name in platforms for kind, error in kinds.items()}
    for name in platforms:
        assert len({steps[kind, name] for kind in kinds}) == 3
    assert "usermod" in steps["denied", "linux"]
    assert "systemctl" in steps["dead", "linux"]
    assert not any("sudo" in step for (_, name), step in steps.items() if name == "win32")


@pytest.mark.parametrize("text", ["2.24.4", "v2.26.1-4", "2.29.1-desktop.1", "3.0.0", "dev"])
def test_a_compose_that_is_new_enough_passes(text) -> None:
    assert checks.compose_version(0, text + "\n") == text


@pytest.mark.parametrize(("code", "text"), [(0, "2.23.9"), (0, "2.24.3"), (0, "1.29.2"), (1, "")])
def test_a_compose_that_is_missing_or_too_old_is_reported(code, text) -> None:
    with pytest.raises(EngineMissing, match=text or "no compose plugin"):
        checks.compose_version(code, text)


@pytest.mark.parametrize("native", [True, False])
def test_a_folder_with_odd_characters_is_accepted(tmp_path, native) -> None:
    odd = tmp_path / 'my "shop" #1 & ü'
    assert checks.folders(odd, odd / "50% $x", native=native) == str(odd)


ODD_ROOTS = [f"a{os.pathsep}b", "50%", *([] if os.name == "nt" else ["$HOME"])]


@pytest.mark.parametrize(
    ("native", "root", "project"),
    [
        *((True, name, "shop") for name in ODD_ROOTS),
        (True, "two\nlines", "shop"),
        (False, "switchyard", "two\nlines"),
        *([] if os.name == "nt" else [(False, "switchyard", "a:b")]),
    ],
)
def test_a_path_with_a_forbidden_character_is_reported(tmp_path, native, root, project) -> None:
    with pytest.raises(BadConfiguration, match="has the character"):
        checks.folders(tmp_path / root, tmp_path / project, native=native)
    if root in ODD_ROOTS:  # with Docker, no program is started from the checkout
        checks.folders(tmp_path / root, tmp_path / project, native=False)


def test_memory_that_the_old_orchestrator_frees_counts() -> None:
    assert "Airflow" in checks.memory("Airflow", needed=850, freed=600, available=300)
    with pytest.raises(OutOfMemory, match="850 MiB, and 300 MiB"):
        checks.memory("Airflow", needed=850, freed=0, available=300)
    assert "not measured" in checks.memory("Luigi", needed=0, freed=0, available=300)


@pytest.mark.parametrize(
    ("log", "killed", "kind"),
    [
        ("FATAL:  database files are incompatible with server", [], IncompatibleData),
        ('could not write to file "pg_wal/xlogtemp.29": No space left on device', ["postgres"], NoSpace),
        ("Killed", ["dagster-code"], OutOfMemory),
        ("ImportError", [], NotHealthy),
    ],
)
def test_a_failed_start_is_reported_according_to_its_log(log, killed, kind) -> None:
    error = diagnosis.start_failure("Dagster", log, killed=killed)
    assert type(error) is kind
    assert log in error.why


def test_a_system_error_is_reported_if_a_user_can_cause_it() -> None:
    assert type(diagnosis.refusal(OSError(errno.ENOSPC, "No space left on device", "x"))) is NoSpace
    refused = diagnosis.refusal(PermissionError(errno.EACCES, "Permission denied", ".stack/lock"))
    assert ("has it open" if os.name == "nt" else "sudo chown") in refused.next
    assert diagnosis.refusal(OSError(errno.EBADF, "Bad file descriptor")) is None


def test_a_clone_with_autocrlf_has_no_windows_line_ends(tmp_path, root) -> None:
    for name in ("source", "clone"):
        (tmp_path / name).mkdir()
    copy_checkout(root, tmp_path / "source")
    clone = ["git", "clone", "--quiet", "--config", "core.autocrlf=true", str(tmp_path / "source"), str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    checks.windows_line_ends(tmp_path / "clone")
    file = tmp_path / "clone" / "docker" / "airflow" / "start.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(BadConfiguration, match=r"docker/airflow/start\.py"):
        checks.windows_line_ends(tmp_path / "clone")


@pytest.mark.parametrize("inside", ["", "folder"])
def test_a_file_is_not_accepted_as_a_folder_to_write_to(tmp_path, inside) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadUsage, match="cannot be a folder") as caught:
        checks.make_folder(tmp_path / "file" / inside, "invoke eject")
    assert caught.value.next == "invoke eject --out ANOTHER_FOLDER"
    checks.make_folder(tmp_path / "new" / "folder", "invoke eject")
    checks.make_folder(tmp_path / "new" / "folder", "invoke eject")


def test_a_cache_beyond_the_engines_memory_is_refused_with_a_value_that_fits() -> None:
    checks.postgres_cache("1024MB", 2048)
    with pytest.raises(OutOfMemory) as caught:
        checks.postgres_cache("4096MB", 2048)
    assert "POSTGRES_MEMORY=512 in .env" in caught.value.next


def test_a_disk_is_found_by_a_folder_that_cannot_be_looked_at(tmp_path) -> None:
    place = tmp_path / ("x" * 300)  # as root may look into every folder, its name is too long instead
    assert checks.disk(place).endswith(f" free in {tmp_path}")


def test_a_chosen_port_is_none_that_an_outgoing_connection_takes() -> None:
    found = ports.unused_ports(20)
    assert len({*found}) == 20
    assert {*found} <= {*ports.RANGE}


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_of_either_address_of_localhost_is_taken(monkeypatch, family, address) -> None:
    try:
        server = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        port = server.getsockname()[1]
        assert not ports.free(port)
        monkeypatch.setattr(ports, "RANGE", [port])
        assert ports.unused_ports(1) == []
    assert ports.free(port)
    assert ports.unused_ports(1) == [port]
