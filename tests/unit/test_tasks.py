"""What a user types, each command in a separate process; nothing here needs Docker."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from dotenv import dotenv_values
from invoke import Collection

import tasks
from switchyard import console, neighbours, settings
from switchyard.fingerprints import base_images
from switchyard.ports import unused_ports
from switchyard.runner import Runner
from switchyard.runtimes.native.postgres import Postgres

from ..stacks import PORTS


@pytest.fixture
def invoke(tmp_path, root):
    """Run invoke in a copy of the checkout, without docker on PATH and without an .env."""
    for name in (
        "tasks.py",
        "switchyard",
        "rundbt",
        "bench",
        "compare",
        "compose",
        "docker",
        "dbt_project",
        ".env.example",
        "requirements.txt",
        "versions.toml",
    ):
        source = root / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns(".env"))  # not this checkout's own compose/.env
        else:
            shutil.copy(source, tmp_path / name)

    def run(*args, **variables):
        env = {**os.environ, "PATH": str(tmp_path), "NO_COLOR": "1", **variables}
        return subprocess.run([sys.executable, "-m", "invoke", *args], cwd=tmp_path, env=env, capture_output=True, text=True)

    run.folder = tmp_path
    return run


@pytest.fixture
def free():
    """Unused ports, as variables: another stack may be up on this machine."""
    return {name: str(port) for name, port in zip(PORTS, unused_ports(len(PORTS)))}


ENGINE = """#!/bin/sh
case "$1" in
"$REFUSED") exit 1 ;;
version) echo 26.1.5 ;;
compose) echo 2.26.1 ;;
info) printf '8000000000\\t/nowhere\\n' ;;
image) case "$*" in *inspect*) echo '{}' ;; *'=*:local'*) printf 'switchyard-dagster\\nswitchyard-2-postgres\\nx-other\\n' ;; esac ;;
volume) case "$*" in *Label*) printf 'switchyard-3\\n' ;; esac ;;
ps) case "$*" in *publish=*|*com.docker.compose.project=*) ;; *) printf 'switchyard-4\\t/elsewhere\\n' ;; esac ;;
esac
"""


@pytest.fixture
def engine(invoke):
    """A PATH with a docker that answers like an engine with the stacks of other checkouts; it fails where its first word is $REFUSED."""
    docker = invoke.folder / "docker-engine" / "docker"
    docker.parent.mkdir()
    docker.write_text(ENGINE)
    docker.chmod(0o755)
    return f"{docker.parent}:/bin:/usr/bin"


TASKS = sorted(Collection.from_module(tasks).task_names)


def faults(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that `invoke doctor` marks as broken, except those about the memory and the disk of this machine."""
    assert "Memory: " in done.stdout
    return [line for line in done.stdout.splitlines() if line.startswith(("✗ ", "x ")) and not line[2:].startswith(("Memory: ", "Disk: "))]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("POSTGRES_PORT", "x"),
        ("AIRFLOW_DB_PASSWORD", "a/b"),
        ("DBT_PROJECT", "/nowhere"),
        ("STACK_PG_BIN", "/nowhere"),
        ("INTEGRATION", "fat"),
    ],
)
@pytest.mark.parametrize("command", ["up", "doctor"])
def test_a_wrong_value_is_reported_with_its_origin(invoke, key, value, command) -> None:
    done = invoke(command, **{key: value})
    assert done.returncode
    assert f"{key} is set in your shell, which wins over .env" in done.stdout + done.stderr


def test_a_deleted_release_can_still_be_left(invoke) -> None:
    """Commands that show the stack, stop it or leave the release do not need its file; the others would run something else."""
    assert invoke("status").returncode == 0
    env = invoke.folder / ".env"
    env.write_text(env.read_text() + "RELEASE_FILE=.stack/gone.json\n")
    for words in ("status",), ("down",):
        done = invoke(*words)
        assert done.returncode == 0, done.stderr
        assert ".stack/gone.json is not a release" in done.stderr
    for words in ("up",), ("run",), ("switch", "prefect"), ("clean", "--volumes", "--yes"):
        done = invoke(*words)
        assert done.returncode == 5
        assert "clear RELEASE_FILE in .env" in done.stderr
    assert invoke("use", "shop").returncode == 0
    assert "\nRELEASE_FILE=\n" in env.read_text()
    assert "is not a release" not in invoke("status").stderr


def test_list_has_a_sentence_for_every_task_and_touches_nothing(invoke) -> None:
    done = invoke("--list")
    assert done.returncode == 0
    for name in TASKS:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in done.stdout.splitlines()), name
    assert not (invoke.folder / ".env").exists()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("after", [False, True], ids=["--help TASK", "TASK --help"])
def test_help_explains_every_flag(invoke, name, after) -> None:
    done = invoke(name, "--help") if after else invoke("--help", name)
    assert done.returncode == 0, done.stderr
    for option in re.split(r"^  (?=-)", done.stdout.split("Options:")[1], flags=re.M)[1:]:
        assert re.fullmatch(r"(-\w( STRING| INT| \[STRING\])?, )?--[\w\[\]-]+(=STRING\]?|=INT)?\s+[A-Z][^.]+\..*", option, flags=re.S), (
            option
        )
    assert not (invoke.folder / ".env").exists()


def test_a_project_with_its_own_warehouse_is_not_compared(invoke, root) -> None:
    done = invoke("compare", DBT_PROJECT=str(root / "tests" / "projects" / "duck"))
    assert done.returncode == 2, done.stderr
    assert "goes to its own warehouse" in done.stderr
    assert not (invoke.folder / "reports").exists()


def test_a_short_flag_is_the_same_in_every_command(invoke) -> None:
    for name in ("up", "build", "bench", "compare"):
        assert {"-o STRING, --orch", "-r STRING, --runtime"} <= set(re.findall(r"-\w STRING, --\w+", invoke("--help", name).stdout))


def test_help_shows_defaults(invoke) -> None:
    assert "Default: 300." in " ".join(invoke("--help", "up").stdout.split())


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        pytest.param(("switch", "dagstre"), 2, "Did you mean dagster?", id="a misspelt orchestrator"),
        pytest.param(("up", "--orch", "airflw"), 2, "Did you mean airflow?", id="a misspelt --orch"),
        pytest.param(("switch", "--dry"), 2, "is a flag", id="a flag instead of the name"),
        pytest.param(("up", "--timeout", "x"), 2, "--timeout 'x' is not", id="a timeout that is a word"),
        pytest.param(("switch", "dagster", "--timeout=-1"), 2, "--timeout '-1' is not", id="a negative timeout"),
        pytest.param(("logs", "--tail", "0"), 2, "--tail '0' is not", id="no lines of a log"),
        pytest.param(("docs", "--port", "70000"), 2, "--port 70000 is not a port", id="a port out of range"),
        pytest.param(("run", "--job", "x"), 2, "The jobs are daily", id="an unknown job"),
        pytest.param(("up", "--integration", "fat"), 2, "There are vendor and lean", id="an unknown integration"),
        pytest.param(("use", "shop", "--warehouse", "theirs"), 2, "There are auto, shared and own", id="an unknown warehouse"),
        pytest.param(("compare", "--only", "score"), 2, "There are start, speed, loop, failures", id="an unknown section"),
        pytest.param(("compare", "--orch", "airflw"), 2, "no orchestrator called 'airflw'", id="an unknown orchestrator of a few"),
        pytest.param(("compare", "--rounds", "0"), 2, "--rounds '0' is not", id="no rounds"),
        pytest.param(
            ("compare", "--report", "x", "--quick"), 2, "--report can be combined only with --out", id="a report and measurements"
        ),
        pytest.param(("compare", "--quick", "--full"), 2, "exclude each other", id="two depths"),
        pytest.param(("compare", "--report", "nowhere.json"), 2, "is not a report of invoke compare", id="no report"),
        pytest.param(("run", "--failed", "--job", "daily"), 2, "--failed cannot be combined", id="a repetition of another job"),
        pytest.param(("run", "--failed", "--cancel"), 2, "--failed cannot be combined", id="a repetition and a cancellation"),
        pytest.param(("run", "--cancel", "--full-refresh"), 2, "--cancel cannot be combined", id="a cancellation with options of a run"),
        pytest.param(("run", "--vars", "{day"), 2, "--vars '{day' cannot be read", id="variables that are no mapping"),
        pytest.param(("up", "--workers", "x"), 2, "--workers 'x' is not", id="a number of workers that is a word"),
        pytest.param(("scale", "100"), 2, "invoke scale '100' is not", id="too many workers"),
        pytest.param(("eject", "dagster", "--to", "nomad"), 2, "--to 'nomad' is not supported", id="an unknown kind of files"),
        pytest.param(("eject", "dagster"), 2, "No release is in use", id="nothing to eject"),
        pytest.param(("dbt",), 2, "Type a dbt command after it", id="no command of dbt"),
        pytest.param(("dbt", "--log-level", "debug", "clean"), 2, "dbt clean changes what was built", id="a flag before dbt's command"),
        pytest.param(("dbt", "ls"), 8, "No orchestrator is active, so there is no dbt to call", id="no dbt"),
        pytest.param(("up", "--runtime", "podman"), 2, "The runtimes are auto, docker and native", id="an unknown runtime"),
        pytest.param(("up", "--runtime", "docker"), 3, "Docker not found", id="no docker, but asked for"),
    ],
)
def test_what_a_user_can_cause_ends_with_a_message_and_a_code(invoke, args, code, message) -> None:
    done = invoke(*args)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr


def test_without_docker_the_status_is_that_nothing_is_up(invoke) -> None:
    done = invoke("status")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Nothing is up. Next: invoke up"), done.stderr


def test_a_dry_start_leaves_a_new_checkout_new(invoke, free) -> None:
    done = invoke("--dry", "up", "--orch", "prefect", **free)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "initdb" in done.stdout
    assert neighbours.is_new(invoke.folder)
    assert not Postgres(
        settings.load(invoke.folder, {}, write=False)[0], Runner({}), {}
    ).home.exists()  # as root, it is outside the checkout


def test_docker_in_env_is_not_replaced(invoke) -> None:
    done = invoke("status", RUNTIME="docker")
    assert (done.returncode, "Docker not found" in done.stderr) == (3, True), done.stderr


def test_an_unknown_name_is_refused_before_anything_is_written(invoke) -> None:
    invoke("switch", "dagstre")
    assert not (invoke.folder / ".env").exists()


def test_a_broken_env_is_reported(invoke) -> None:
    (invoke.folder / ".env").write_text("DAGSTER_PORT=x\n")
    done = invoke("status")
    assert (done.returncode, "DAGSTER_PORT" in done.stderr) == (5, True), done.stderr


def test_doctor_works_with_nothing_set_up_and_changes_nothing(invoke, free) -> None:
    done = invoke("doctor", **free)
    assert faults(done) == [], done.stdout + done.stderr
    assert "! Docker: Docker not found." in done.stdout
    assert ".env: none yet" in done.stdout
    assert "Dagster: runs here without Docker" in done.stdout
    assert not (invoke.folder / ".env").exists()
    assert not (invoke.folder / ".stack").exists()


@pytest.mark.parametrize(
    ("words", "moving"), [((), ""), (("--upgrade",), "--upgrade"), (("--upgrade", "dbt-core"), "--upgrade-package dbt-core")]
)
def test_a_dry_lock_shows_what_it_would_run(invoke, words, moving) -> None:
    (invoke.folder / ".env").write_text("DAGSTER_PORT=x\n")  # a wrong value that does not matter to it
    done = invoke("--dry", "lock", *words)
    assert done.returncode == 0, done.stderr
    typed = [line for line in done.stdout.splitlines() if "uv" in line and "pip compile" in line]
    assert any("docker/prefect/requirements.in" in line.replace(os.sep, "/") for line in typed)
    assert all((moving in line) and (bool(moving) == ("--upgrade" in line)) for line in typed)
    assert invoke("lock", "--upgrade", "no-such-package").returncode == 2


@pytest.mark.parametrize(
    ("image", "other"),
    [
        ("mirror.example:5000/apache/airflow:3.0.0-python3.12", True),
        ("apache/airflow:3.0.0-python3.12@sha256:0123", True),
        ("mirror.example:5000/apache/airflow@sha256:0123", False),
        ("mirror.example:5000/airflow", False),
    ],
)
def test_doctor_shows_a_base_image_of_another_version(invoke, free, image, other) -> None:
    (invoke.folder / ".env").write_text(f"AIRFLOW_IMAGE={image}\n")
    done = invoke("doctor", **free, **dict.fromkeys(base_images(settings.defaults(invoke.folder, {})), ""))
    assert faults(done) == [], done.stdout + done.stderr
    assert ("AIRFLOW_IMAGE has the version" in done.stdout) == other


def test_doctor_reports_a_base_image_without_a_setting(invoke, free) -> None:
    file = invoke.folder / "docker" / "prefect" / "Dockerfile"
    file.write_text(file.read_text().replace("PYTHON_IMAGE", "OTHER_IMAGE"))
    done = invoke("doctor", **free)
    (fault,) = faults(done)
    assert "docker-compose-prefect.yaml: The setting OTHER_IMAGE has no value" in fault, done.stderr
    assert "Next: Write OTHER_IMAGE=python:" in fault


def test_doctor_continues_after_a_problem_and_ends_with_the_code_of_the_first(invoke) -> None:
    (invoke.folder / ".env").write_text("DAGSTER_PROT=3001\n")
    (invoke.folder / "compose" / "docker-compose-prefect.yaml").write_text("services: [")
    done = invoke("doctor", "--runtime", "docker")
    assert done.returncode == 5, done.stdout + done.stderr
    broken = [line for line in done.stdout.splitlines() if line[0] in "✗x"]
    # The ports are checked too: the default ones, because .env cannot be read, so another program may use them.
    assert [line.split(":")[0][2:] for line in broken if "_PORT:" not in line] == [".env", "compose/docker-compose-prefect.yaml", "Runtime"]
    assert all("Next: " in line for line in broken)
    done = invoke("doctor", "--runtime", "docker", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["code"]) == (5, 5)
    assert [f"{check['check']}: {check['text']} Next: {check['next']}" for check in found["checks"] if check["state"] == "failed"] == [
        line[2:] for line in broken
    ]


@pytest.mark.parametrize("args", [("doctor",), ("status",), ("--list",), ("switch", "dagstré")], ids=" ".join)
def test_a_terminal_without_utf8_gets_ascii(invoke, free, args) -> None:
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = invoke(*args, **plain, **free)
    assert "Traceback" not in done.stderr
    assert (done.stdout + done.stderr).isascii()
    if args[0] == "doctor":
        assert faults(done) == [], done.stdout
    else:
        assert done.returncode == (2 if args[0] == "switch" else 0), done.stderr


def test_a_missing_package_is_reported(invoke) -> None:
    (invoke.folder / "psutil.py").write_text("raise ModuleNotFoundError(name='psutil')\n")
    done = invoke("status")
    assert (done.returncode, "pip install -r requirements.txt" in done.stderr) == (3, True), done.stderr


@pytest.mark.parametrize(
    ("line", "writes"),
    [
        ("run", True),
        ("run --log-level debug", True),
        ("--log-level debug run", True),
        ("--log-level=debug run", True),
        ("-t docs build", True),
        ("-qt docs build", True),
        ("--quiet seed", True),
        ("-- test", True),
        ("ls --select run", False),
        ("ls --resource-type test", False),
        ("--log-level debug ls", False),
        ("--version", False),
    ],
)
def test_a_value_of_a_flag_is_not_taken_for_the_command_of_dbt(line, writes) -> None:
    assert bool(tasks.possible_commands(line.split()).intersection(tasks.WRITING)) == writes


def in_a_shell(invoke, rest: str) -> subprocess.CompletedProcess[str]:
    """Run `invoke` with ``rest`` in a shell that finds no other program."""
    return subprocess.run(
        [shutil.which("sh"), "-c", f"{shlex.quote(sys.executable)} -m invoke {rest}"],
        cwd=invoke.folder, env={**os.environ, "PATH": str(invoke.folder)}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no head")
def test_a_closed_pipe_ends_the_command_quietly(invoke) -> None:
    done = in_a_shell(invoke, f"doctor | {shutil.which('head')} -n 1")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_new_checkout_gets_unused_ports(invoke) -> None:
    example = invoke.folder / ".env.example"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        text = re.sub(r"(?m)^POSTGRES_PORT=.*", f"POSTGRES_PORT={taken}", example.read_text())
        example.write_text(re.sub(r"(?m)^DAGSTER_PORT=.*", f"DAGSTER_PORT={taken + 1}", text))  # must not be assigned twice
        done = invoke("status", "--json")
        assert json.loads(done.stdout)["orchestrator"] is None
        output = done.stderr
        chosen = settings.load(invoke.folder, {})[0].values
        found = {int(chosen[key]) for key in PORTS}
        assert len(found) == 4
        assert taken not in found
        assert f"POSTGRES_PORT is {chosen['POSTGRES_PORT']}: {taken} is taken on this machine." in output
        invoke("status")
        assert settings.load(invoke.folder, {})[0].values == chosen
    (invoke.folder / ".env").unlink()
    (invoke.folder / ".stack" / "native").mkdir(parents=True)  # it is not new, so its own stack may hold the ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        invoke("status")
        assert settings.load(invoke.folder, {})[0]["POSTGRES_PORT"] == str(taken)


@pytest.mark.skipif(sys.platform == "win32", reason="the engine is a POSIX shell script")
@pytest.mark.parametrize("runtime", ["docker", "native"])
def test_a_taken_port_is_no_failure_where_another_will_be_chosen(invoke, engine, free, runtime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        example = invoke.folder / ".env.example"
        example.write_text(re.sub(r"(?m)^DAGSTER_PORT=.*", f"DAGSTER_PORT={taken}", example.read_text()))
        free = {key: port for key, port in free.items() if key != "DAGSTER_PORT"} | {"RUNTIME": runtime, "PATH": engine}
        doctor = invoke("doctor", **free)
        assert f"DAGSTER_PORT: {taken} is taken; the first command chooses another port" in doctor.stdout, doctor.stderr
        assert invoke("--dry", "up", "--orch", "dagster", **free).returncode == 0
        assert f"Port {taken} (DAGSTER_PORT) is in use" in invoke("doctor", **free, DAGSTER_PORT=taken).stdout
        assert neighbours.is_new(invoke.folder)


def test_an_invalid_value_of_the_shell_leaves_a_new_checkout_new(invoke) -> None:
    """Its ports are chosen when ``.env`` is written, and not later."""
    assert invoke("status", DAGSTER_PORT="x").returncode == 5
    assert neighbours.is_new(invoke.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="the engine is a POSIX shell script")
def test_a_stack_gets_its_name_at_the_first_command_that_the_engine_answers(invoke, engine, free) -> None:
    """Of the names that are taken, the first has images of one orchestrator alone, then data, then containers."""

    def name() -> str | None:
        return dotenv_values(invoke.folder / ".env").get("COMPOSE_PROJECT_NAME")

    def status(refused: str = "none", **variables: str) -> subprocess.CompletedProcess[str]:
        return invoke("status", PATH=engine, REFUSED=refused, **free, **variables)

    for words, code in (({"refused": "version"}, 0), ({"refused": "volume"}, 3), ({"COMPOSE_PROJECT_NAME": "mine"}, 0)):
        done = status(**words)
        assert (done.returncode, name()) == (code, None), done.stderr
    done = status()
    assert (done.returncode, name()) == (0, "switchyard-5"), done.stderr
    assert "Docker has a stack called switchyard already, with images: this one is switchyard-5." in done.stderr
    assert "already" not in status().stderr
    text = (invoke.folder / ".env").read_text().replace("COMPOSE_PROJECT_NAME=switchyard-5\n", "")
    (invoke.folder / ".env").write_text(text)
    (invoke.folder / "compose" / ".env").touch()  # something may have been made under the default name
    assert (status().returncode, name()) == (0, None)


def test_a_closed_standard_input_counts_as_no(monkeypatch) -> None:
    answers: list[bool] = []
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # otherwise the command's signal handlers would stay
    tasks.guard(lambda: answers.append(console.confirm("Delete all?")))()
    assert answers == [False]


@pytest.mark.skipif(sys.platform == "win32", reason="this needs a POSIX shell")
def test_a_closed_standard_output_is_not_an_error(invoke) -> None:
    done = in_a_shell(invoke, "status >&-")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_a_question_with_characters_that_the_terminal_cannot_show_is_asked(monkeypatch) -> None:
    with open(os.devnull, "w", encoding="ascii") as output, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        patched.setattr(sys, "stdin", io.StringIO("y\n"))
        assert console.confirm("Delete /data/caf\u00e9?")


def test_an_import_of_the_tasks_runs_no_dbt(root) -> None:
    program = "import sys; sys.argv = ['x', 'dbt', 'ls']; import tasks; print('imported')"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr
