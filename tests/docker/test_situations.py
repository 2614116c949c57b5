"""Problems that users of such tools report, reproduced for real: each ends with its own exit code, and with what to do."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dotenv import dotenv_values

from switchyard import checks, orchestrators, ports, settings
from switchyard.runner import Runner
from switchyard.runtimes.docker import argv
from switchyard.runtimes.docker.runtime import Docker

from ..stacks import POISON, copy_checkout, mostly_long
from .conftest import PROJECT, DockerStack, python_image


@contextmanager
def replaced(file: Path, old: str, new: str) -> Iterator[None]:
    """Replace ``old`` in a file of the checkout for the time of the block."""
    before = file.read_text()
    assert old in before
    file.write_text(before.replace(old, new))
    try:
        yield
    finally:
        file.write_text(before)


def compose_file(stack, name: str) -> Path:
    return stack.folder / "compose" / f"docker-compose-{name}.yaml"


def in_volume(script: str) -> str:
    """Run a script where PostgreSQL's volume is mounted on /data."""
    argv = ["docker", "run", "--rm", "--volume", f"{PROJECT}_postgres-db-volume:/data", "--entrypoint", "sh"]
    return subprocess.check_output([*argv, f"{PROJECT}-postgres:local", "-c", script], text=True).strip()


@pytest.fixture
def namesakes():
    """The data of eight more stacks, called like this one with a number."""
    names = [f"{PROJECT}-{number}" for number in range(2, 10)]
    for name in names:
        subprocess.check_output(["docker", "volume", "create", "--label", f"com.docker.compose.project={name}", name])
    yield
    subprocess.check_output(["docker", "volume", "rm", *names])


def test_one_more_checkout_gets_its_own_stack(stack, namesakes, root, tmp_path) -> None:
    """Its environment sets neither name nor port, and this stack uses those of its `.env.example`."""
    stack.on("dagster")
    copy_checkout(root, tmp_path)
    example = tmp_path / ".env.example"
    text = example.read_text()
    for key, port in stack.ports.items():
        text = re.sub(rf"(?m)^{key}=.*", f"{key}={port}", text)
    example.write_text(text)
    with replaced(tmp_path / "switchyard" / "settings.py", 'PROJECT_NAME = "switchyard"', f'PROJECT_NAME = "{PROJECT}"'):
        env = {key: value for key, value in os.environ.items() if key not in ("COMPOSE_PROJECT_NAME", *stack.ports)}
        argv = [sys.executable, "-m", "invoke", "status"]
        done = subprocess.run(argv, cwd=tmp_path, env={**env, "NO_COLOR": "1"}, capture_output=True, text=True, check=True)
    found = dotenv_values(tmp_path / ".env")
    assert found["COMPOSE_PROJECT_NAME"] == f"{PROJECT}-10"
    assert f"a stack called {PROJECT} already, of {stack.folder}" in done.stderr
    assert "Nothing is up" in done.stdout
    assert int(found["POSTGRES_PORT"]) != stack.ports["POSTGRES_PORT"]
    assert int(found["DAGSTER_PORT"]) != stack.ports["DAGSTER_PORT"]
    assert stack.status()["orchestrator"] == "dagster"


def test_a_stack_of_another_checkout_is_left_alone(stack, root, tmp_path) -> None:
    """Its environment has the same project name, and the other stack is first up, then down."""
    stack.on("dagster")
    copy_checkout(root, tmp_path)
    other = DockerStack(tmp_path, COMPOSE_PROJECT_NAME=PROJECT, RUNTIME="docker")
    before = stack.hashes()
    for _ in range(2):
        assert other.status()["services"] == []
        assert "is not this checkout's" in other.invoke("doctor", code=5).stdout
        for words in [("up",), ("down",), ("build", "--orch", "dagster"), ("clean", "--volumes", "--images", "--yes", "--no-backup")]:
            done = other.invoke(*words, code=5)
            assert f"{stack.folder} has its containers, its data or its images" in done.stderr
        stack.invoke("down")
    stack.on("dagster")
    assert stack.hashes() == before


@pytest.mark.long
def test_the_callers_variables_do_not_reach_the_stack(stack) -> None:
    stack.on("dagster")
    stack.invoke("build", "--orch", "dagster", **POISON)
    stack.invoke("up", "--orch", "dagster", **POISON)
    assert '"unhealthy"' not in stack.invoke("status", "--json", **POISON).stdout
    assert "succeeded on" in stack.invoke("run", "--job", "smoke", **POISON).stdout
    assert "300" in stack.invoke("sql", "select count(*) from marts.dim_customers", **POISON).stdout


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc, where no folder can be made")
def test_a_build_works_without_a_writable_home(stack) -> None:
    stack.invoke("build", "--orch", "dagster", HOME="/proc/nowhere")


@pytest.mark.long
def test_images_of_another_checkout_are_left_alone(stack, root, tmp_path) -> None:
    """The other checkout has only built them, and has neither containers nor data."""
    project = f"{PROJECT}-images"
    folders = {name: tmp_path / name for name in ("first", "second")}
    stacks = {}
    for name, folder in folders.items():
        folder.mkdir()
        copy_checkout(root, folder)
        stacks[name] = DockerStack(folder, COMPOSE_PROJECT_NAME=project, RUNTIME="docker")
    try:
        stacks["first"].invoke("build", "--orch", "dagster")
        for words in [("build", "--orch", "dagster"), ("clean", "--images", "--yes")]:
            assert f"{folders['first']} has its containers, its data or its images" in stacks["second"].invoke(*words, code=5).stderr
    finally:
        assert f"Deleted {project}-dagster:local" in stacks["first"].invoke("clean", "--images", "--yes").stdout


@pytest.mark.long
def test_clean_leaves_images_of_a_project_with_a_longer_name_alone(tmp_path, root) -> None:
    name = f"{PROJECT}-pre"
    subprocess.check_output(["docker", "tag", python_image(), f"{name}-two-dagster:local"])
    try:
        copy_checkout(root, tmp_path)
        DockerStack(tmp_path, COMPOSE_PROJECT_NAME=name, RUNTIME="docker").invoke("clean", "--images")
        assert subprocess.run(["docker", "image", "inspect", f"{name}-two-dagster:local"], capture_output=True).returncode == 0
    finally:
        subprocess.check_output(["docker", "image", "rm", f"{name}-two-dagster:local"])


@pytest.mark.long
def test_the_port_of_a_service_in_a_restart_loop_is_never_reported_as_a_strangers(tmp_path, root) -> None:
    copy_checkout(root, tmp_path)
    port, name = ports.unused(), f"{PROJECT}-failing-postgres-1"
    loaded, _ = settings.load(tmp_path, {"COMPOSE_PROJECT_NAME": f"{PROJECT}-failing", "POSTGRES_PORT": str(port)})
    runtime = Docker(loaded, orchestrators.load_all(tmp_path), Runner(loaded.values))
    ours = ["--label", f"com.docker.compose.project={loaded.compose_name}", "--label", "com.docker.compose.service=postgres"]
    failing = ["docker", "run", "--detach", "--name", name, *ours, "--restart", "always", "--publish", f"127.0.0.1:{port}:5432"]
    subprocess.check_output([*failing, "--entrypoint", "sh", python_image(), "-c", "sleep 0.1; exit 1"])
    restarts = ["docker", "inspect", "--format", "{{.RestartCount}}", name]
    check = next(check for check in runtime.checks.of([]) if check.what == "POSTGRES_PORT")
    answers = set()
    try:
        while int(subprocess.check_output(restarts)) < 6:
            answers.update(check.run() for _ in range(20))
    finally:
        subprocess.check_output(["docker", "rm", "--force", name])
    assert answers
    assert answers <= {f"{port} is free", f"{port} is held by this stack"}


@pytest.mark.long
def test_data_of_another_postgres_is_reported_before_a_start_and_left_alone(stack) -> None:
    stack.invoke("down")
    version = in_volume("cat /data/PG_VERSION")
    in_volume("echo 15 > /data/PG_VERSION")
    try:
        output = stack.invoke("up", "--orch", "dagster", code=14).stderr
        assert "PostgreSQL 15" in output
        assert "invoke clean --volumes --no-backup" in output
        assert "PostgreSQL 15" in stack.invoke("doctor", code=14).stdout
        assert stack.status()["services"] == []
        # Without the image, nothing can read the version beforehand; the server's own message shows it.
        subprocess.check_output(["docker", "image", "rm", f"{PROJECT}-postgres:local"], text=True)
        assert "incompatible" in stack.invoke("up", "--orch", "dagster", "--timeout", "20", code=14).stderr
    finally:
        in_volume(f"echo {version} > /data/PG_VERSION")
    stack.invoke("up", "--orch", "dagster")


@pytest.mark.long
def test_a_service_that_ran_out_of_memory_is_reported(stack) -> None:
    stack.invoke("down")
    with replaced(compose_file(stack, "dagster"), "mem_limit: 1g", "mem_limit: 24m"):
        output = stack.invoke("up", "--orch", "dagster", "--timeout", "25", code=15).stderr
    assert "ran out of memory" in output
    assert "dagster-daemon" in output or "dagster-webserver" in output
    assert "mem_limit" in output
    stack.invoke("up", "--orch", "dagster")


@pytest.mark.long
def test_a_start_continues_after_a_failed_health_check(stack) -> None:
    stack.invoke("down")
    limit = "  interval: 15s\n  timeout: 10s\n  retries: 4\n  start_period: 120s\n  start_interval: 1s\n"
    with replaced(compose_file(stack, "dagster"), limit, "  interval: 1s\n  timeout: 10s\n  retries: 1\n"):
        stack.invoke("up", "--orch", "dagster")
    stack.invoke("up", "--orch", "dagster")


def test_too_little_memory_for_the_target_is_reported_before_the_old_one_stops(stack) -> None:
    stack.on("dagster")
    before = [service["id"] for service in stack.status()["services"]]
    with replaced(compose_file(stack, "prefect"), "  memory: ", "  memory: 90000"):
        assert "too little memory for Prefect" in stack.invoke("switch", "prefect", code=15).stderr
        assert "too little memory for Prefect" in stack.invoke("doctor", code=15).stdout
    assert [service["id"] for service in stack.status()["services"]] == before


def test_a_file_that_compose_rejects_is_reported_before_anything_is_touched(stack) -> None:
    stack.on("dagster")
    before = [service["id"] for service in stack.status()["services"]]
    with replaced(compose_file(stack, "prefect"), "\nservices:\n", "\nservices:\n  other: {nonsense: 1}\n"):
        assert "Compose rejects docker-compose-prefect.yaml" in stack.invoke("switch", "prefect", code=5).stderr
        assert "Compose rejects docker-compose-prefect.yaml" in stack.invoke("doctor", code=5).stdout
    assert [service["id"] for service in stack.status()["services"]] == before


def test_a_project_that_containers_cannot_read_is_reported_before_anything_is_touched(stack) -> None:
    stack.on("dagster")
    model = stack.dbt / "models" / "marts" / "dim_products_v2.sql"
    before = model.stat().st_mode
    model.chmod(0o600)
    try:
        refused = stack.invoke("switch", "prefect", code=5).stderr
    finally:
        model.chmod(before)
    assert f"{model} has mode 600" in refused
    assert f"chmod -R go+rX {stack.dbt}" in refused
    assert stack.status()["orchestrator"] == "dagster"


def test_an_unknown_service_is_refused(stack) -> None:
    stack.on("dagster")
    assert "The services are postgres, dagster-code" in stack.invoke("logs", "--service", "dagster-cod", code=2).stderr


def test_after_a_restart_of_the_machine_the_next_up_continues(stack) -> None:
    stack.on("dagster")
    containers = [service["container"] for service in stack.status()["services"]]
    subprocess.check_output(["docker", "kill", *containers])
    stack.invoke("up", "--orch", "dagster")
    assert {service["health"] for service in stack.status()["services"]} == {"healthy"}


@pytest.mark.long
def test_a_volume_with_old_passwords_gets_those_of_the_env_file(stack) -> None:
    stack.invoke("down")
    env = stack.folder / ".env"
    old = stack.secrets()
    env.write_text("".join(f"{line}\n" for line in env.read_text().splitlines() if "PASSWORD" not in line))
    stack.invoke("up", "--orch", "dagster")
    assert stack.secrets()["POSTGRES_PASSWORD"] != old["POSTGRES_PASSWORD"]

    # Over the network, where the server asks for the password.
    argv = ["docker", "exec", "--env", "PGPASSWORD", f"{PROJECT}-postgres-1", "psql", "-h", "postgres", "-U", "postgres", "-c", "select 1"]
    for secrets, code in ((stack.secrets(), 0), (old, 2)):
        done = subprocess.run(argv, env={**os.environ, "PGPASSWORD": secrets["POSTGRES_PASSWORD"]}, capture_output=True)
        assert done.returncode == code, done.stderr


def test_containers_of_an_orchestrator_without_a_file_are_reported(stack) -> None:
    stack.on("dagster")
    file = compose_file(stack, "dagster")
    away = file.rename(stack.folder / "away")
    try:
        assert f"{PROJECT}-dagster-code-1" in stack.invoke("doctor").stdout
        stack.invoke("down")
    finally:
        away.rename(file)
    assert stack.status()["services"] == []


def test_a_port_that_a_strangers_container_publishes_is_reported_with_the_container(stack) -> None:
    stack.invoke("down")
    name, port = f"{PROJECT}-stranger", stack.ports["DAGSTER_PORT"]
    stranger = ["docker", "run", "--rm", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:8000"]
    subprocess.check_output([*stranger, "--entrypoint", "sleep", python_image(), "300"])
    try:
        up, doctor = stack.invoke("up", "--orch", "dagster", code=9).stderr, stack.invoke("doctor", code=9).stdout
    finally:
        subprocess.check_output(["docker", "rm", "--force", name])
    for output in (up, doctor):
        assert f"Port {port} (DAGSTER_PORT) is in use" in output
        assert f"The container {name} publishes it" in output
    assert stack.status()["services"] == []


@pytest.mark.parametrize(
    "password",
    mostly_long(
        [
            "two words",
            "it's",
            'a "b" c',
            "$HOME",
            "$$",
            "${x:-y}",
            "a#b #c",
            "back\\slash\\n",
            "C:\\keys\\",
            "`id`;&|",
            "50%",
            "é漢",
            "{code}",
            "==",
        ],
        *("it's", "${x:-y}", "back\\slash\\n", "C:\\keys\\", "é漢"),
    ),
)
def test_compose_reads_a_password_as_the_commands_do(tmp_path, root, password) -> None:
    copy_checkout(root, tmp_path)
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    (tmp_path / ".env").write_text(f"DBT_PASSWORD='{quoted}'\nMINE='{quoted}'\n", encoding="utf-8")
    loaded, _ = settings.load(tmp_path, {})
    assert loaded["DBT_PASSWORD"] == password
    runner = Runner({**loaded.values, "COMPOSE_PROJECT_NAME": loaded.compose_name})
    file = orchestrators.load_all(tmp_path)["dagster"].file
    done = runner.ask(argv.compose(loaded, file, "config", "--format", "json"))
    loaded.write_for_compose()
    env = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "DOCKER_HOST")}
    by_hand = subprocess.run(["docker", "compose", "-f", file, "config", "--format", "json"], env=env, capture_output=True, text=True)
    for answer, errors in ((done.stdout, done.stderr), (by_hand.stdout, by_hand.stderr)):
        assert answer, errors
        seen = json.loads(answer)["services"]["dagster-code"]["environment"]["DBT_ENV_SECRET_PASSWORD"]
        assert seen.replace("$$", "$") == password, errors


@pytest.mark.parametrize(("env", "code"), [(None, 0), ("DAGSTER_PROT=1\n", 5)], ids=["none", "broken"])
def test_the_doctor_needs_no_env_file_that_compose_can_read(tmp_path, root, env, code) -> None:
    copy_checkout(root, tmp_path)
    if env:
        (tmp_path / ".env").write_text(env)
    output = DockerStack(tmp_path, COMPOSE_PROJECT_NAME=f"{PROJECT}-none", RUNTIME="docker").invoke("doctor", code=code).stdout
    assert "Compose and docker-compose-dagster.yaml: valid" in output
    assert [line.split(":")[0] for line in output.splitlines() if line[0] in "✗x"] == (["✗ .env"] if env else [])
    assert (tmp_path / ".env").exists() == bool(env)


def test_an_engine_that_is_not_started_is_reported(stack, tmp_path) -> None:
    done = stack.invoke("status", DOCKER_HOST=f"unix://{tmp_path}/none.sock", code=3)
    assert "The Docker engine does not answer" in done.stderr
    assert "Next:" in stack.invoke("doctor", DOCKER_HOST=f"unix://{tmp_path}/none.sock", code=3).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a socket's permissions are POSIX's")
def test_a_missing_permission_for_the_engine_is_reported(tmp_path) -> None:
    path = Path(tempfile.mkdtemp(dir="/tmp"), "engine.sock")  # a socket's path has about a hundred characters at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        argv = ["docker", "--host", f"unix://{path}", "version", "--format", "{{.Server.Version}}"]
        account = {} if os.geteuid() else {"user": "nobody", "group": 65534, "extra_groups": []}
        done = subprocess.run(argv, capture_output=True, text=True, cwd="/", env={**os.environ, "HOME": "/"}, **account)
    assert done.returncode
    assert "not permitted" in checks.no_answer(done.stderr).what


# This test is the last because it ends on Prefect, and test_switch.py starts with a switch from Prefect.
def test_compose_typed_by_hand_changes_nothing_and_starts_no_second_orchestrator(stack) -> None:
    stack.on("dagster")
    before = {service["name"]: service["id"] for service in stack.status()["services"]}

    def typed(name: str) -> subprocess.CompletedProcess[str]:
        argv = ["docker", "compose", "-f", f"compose/docker-compose-{name}.yaml", "up", "--detach", "--no-build"]
        env = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "DOCKER_HOST")}
        return subprocess.run(argv, cwd=stack.folder, env=env, capture_output=True, text=True)

    again = typed("dagster")
    assert again.returncode == 0, again.stderr
    assert {service["name"]: service["id"] for service in stack.status()["services"]} == before
    second = typed("prefect")
    assert second.returncode
    assert f"{PROJECT}-orchestrator" in second.stderr
    assert stack.orchestrators() == {"dagster"}
    assert stack.status()["orchestrator"] == "dagster"
    stack.invoke("switch", "prefect")
    assert stack.orchestrators() == {"prefect"}
    assert {service["state"] for service in stack.status()["services"]} == {"running"}
