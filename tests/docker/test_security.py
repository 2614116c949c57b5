"""The containers' rights, who can sign in, and where no secret may appear: checked on the running stack."""

import itertools
import os
import shutil
import subprocess

import pytest

from rundbt import api

from .. import pages
from ..certificates import company
from ..stacks import Arguments
from .conftest import PROJECT, python_image

OWN = {("airflow", "airflow"), ("dagster", "dagster"), ("prefect", "prefect"), ("dbt", "airflow")}


def in_container(container: str, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container; the values of ``env`` are in no command line."""
    names = [word for name in env for word in ("--env", name)]
    return subprocess.run(["docker", "exec", *names, container, *argv], env={**os.environ, **env}, capture_output=True, text=True)


def as_role(role: str, database: str, password: str, query: str = "select 1") -> str:
    """The server's answer over the network, where every role needs a password."""
    argv = ["psql", "--host", "postgres", "--username", role, "--dbname", database, "--no-psqlrc", "-Atc", query]
    done = in_container(f"{PROJECT}-postgres-1", *argv, PGPASSWORD=password)
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def test_a_container_has_only_the_rights_that_it_needs(stack, orchestrator) -> None:
    services = stack.status()["services"]
    assert len(services) >= 3
    for service in services:
        container = service["container"]
        host = stack.container(service["name"])["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"], host["Privileged"]) == (True, ["ALL"], None, False), container
        assert host["Memory"] > 0, container
        assert host["PidsLimit"] > 0, container
        process = dict(
            line.split(":\t", 1) for line in in_container(container, "cat", "/proc/1/status").stdout.splitlines() if ":\t" in line
        )
        assert "0" not in process["Uid"].split(), container
        assert {process[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}, container
        assert process["NoNewPrivs"] == "1", container
        assert "Operation not permitted" in in_container(container, "setpriv", "--reuid", "0", "true").stderr
        mounts = {line.split()[1] for line in in_container(container, "cat", "/proc/1/mounts").stdout.splitlines()}
        writable = in_container(container, "find", "/", "-xdev", "!", "-type", "l", "-writable", "-print").stdout.split()
        assert "/tmp" in writable, container  # which is in memory
        assert set(writable) <= mounts, container
        assert "Read-only file system" in in_container(container, "touch", "/new").stderr


def test_only_this_machine_can_reach_it(stack, orchestrator) -> None:
    published = [
        binding["HostIp"]
        for service in stack.status()["services"]
        for bindings in (stack.container(service["name"])["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
    ]
    assert published == ["127.0.0.1"] * 2  # PostgreSQL, and the orchestrator's page


def test_no_secret_is_in_an_image_or_a_log(stack, orchestrator) -> None:
    for name in ("postgres", orchestrator):
        image = f"{PROJECT}-{name}:local"
        for argv in (["docker", "history", "--no-trunc", image], ["docker", "image", "inspect", image]):
            assert stack.leaked(subprocess.check_output(argv, text=True)) == []
    for service in stack.status()["services"]:
        done = subprocess.run(["docker", "logs", service["container"]], capture_output=True, text=True)
        assert stack.leaked(done.stdout + done.stderr) == [], service["name"]


def test_a_page_accepts_only_the_generated_password(stack, orchestrator) -> None:
    def status(path: str, body: object = None, **headers: str) -> int:
        try:
            api.request("GET" if body is None else "POST", f"{url}{path}", body, headers)
        except api.ApiError as error:
            return error.status
        return 200

    password = stack.secrets()[f"{orchestrator.upper()}_ADMIN_PASSWORD"]
    url = f"http://127.0.0.1:{stack.ports[f'{orchestrator.upper()}_PORT']}"
    if orchestrator == "dagster":
        pages.asks_for_the_password(stack)
    elif orchestrator == "prefect":
        asked = ("/api/flows/filter", {})
        assert status(*asked) == 401
        assert [status(*asked, **api.basic_auth(f"admin:{guess}")) for guess in ("admin", "", "prefect")] == [401] * 3
        assert status(*asked, **api.basic_auth(f"admin:{password}")) == 200
    else:
        assert status("/api/v2/dags") == 401
        for user, guess in (("admin", "admin"), ("airflow", "airflow"), ("admin", "")):
            assert status("/auth/token", {"username": user, "password": guess}) in (400, 401)
        token = api.request("POST", f"{url}/auth/token", {"username": "admin", "password": password})["access_token"]
        assert status("/api/v2/dags", Authorization=f"Bearer {token}") == 200


def test_a_role_reaches_its_own_database_and_no_other(stack) -> None:
    passwords = {name: stack.secrets()[f"{name.upper()}_DB_PASSWORD"] for name in ("airflow", "dagster", "prefect")}
    passwords["dbt"] = stack.secrets()["DBT_PASSWORD"]
    for role, database in itertools.product(passwords, ("airflow", "dagster", "prefect", "postgres", "template1")):
        answer = as_role(role, database, passwords[role])
        assert answer == "1" if (role, database) in OWN else "permission denied for database" in answer, (role, database, answer)
    assert "permission denied for schema marts" in as_role("airflow", "airflow", passwords["airflow"], "select * from marts.dim_customers")
    assert "permission denied for schema public" in as_role("dbt", "airflow", passwords["dbt"], "create table public.x ()")
    mighty = "rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls"
    assert stack.sql(f"select rolname from pg_roles where {mighty}") == "postgres"


@pytest.mark.parametrize("name", ["postgres", "airflow", "dagster", "prefect", "dbt", "admin"])
def test_no_password_can_be_guessed(stack, name) -> None:
    for guess in (name, "postgres", "password", ""):
        answer = as_role(name, "airflow", guess)
        assert "password authentication failed" in answer or "no password supplied" in answer, (guess, answer)


def test_nothing_that_is_printed_shows_a_secret(stack) -> None:
    active = stack.status()["orchestrator"] or "dagster"
    shown = [  # Stack.run looks at each command's output
        stack.invoke("--echo", "up", "--orch", active),
        stack.invoke("--echo", "sql", "select 1"),
        stack.invoke("--dry", "switch", "airflow" if active != "airflow" else "prefect"),
        stack.invoke("logs", "--tail", "100000"),
        stack.invoke("status", "--json"),
    ]
    assert all(done.stdout for done in shown)
    assert "$ docker compose" in shown[0].stdout
    assert (stack.folder / ".env").stat().st_mode & 0o777 == 0o600


def test_the_build_context_has_only_the_files_of_the_images(stack, tmp_path) -> None:
    key = stack.folder / "certs" / "company.key"
    key.write_text("private")
    try:
        subprocess.run(
            ["docker", "build", "--quiet", "--file", "-", "--output", str(tmp_path / "ctx"), str(stack.folder)],
            input="FROM scratch\nCOPY . /\n", text=True, check=True, capture_output=True,
        )  # fmt: skip
    finally:
        key.unlink()
    sent = {path.relative_to(tmp_path / "ctx").as_posix() for path in (tmp_path / "ctx").rglob("*") if path.is_file()}
    assert {"docker/dagster/Dockerfile", "rundbt/jobs.py"} <= sent
    assert {name.split("/")[0] for name in sent} == {"docker", "rundbt", ".stack", "certs"}
    assert all(name.startswith((".stack/build/", "docker/", "rundbt/", "certs/")) for name in sent)
    assert {name for name in sent if name.startswith("certs/") and not name.endswith(".crt")} == {"certs/README.md"}
    assert not {name for name in sent if name.endswith(".env") or ".git/" in name}


def test_a_base_image_that_cannot_be_pulled_is_reported_with_the_alternatives(stack) -> None:
    output = stack.invoke("build", "--orch", "dagster", code=16, PYTHON_IMAGE="127.0.0.1:1/nothing:1").stderr
    assert "127.0.0.1:1/nothing:1 cannot be pulled" in output
    assert "Set PYTHON_IMAGE in .env" in output
    assert "invoke up --runtime native" in output


def test_a_proxy_reaches_the_build_and_stays_out_of_the_image(stack) -> None:
    proxy = "http://somebody:secret-word@127.0.0.1:9"
    file = stack.folder / "docker" / "dagster" / "Dockerfile"
    good = file.read_text()
    file.write_text("ARG PYTHON_IMAGE\nFROM ${PYTHON_IMAGE}\nRUN echo proxies: $HTTPS_PROXY $no_proxy; exit 3\n")
    try:
        # A shell may set both spellings, to different values; BuildKit would use one of them at random.
        both = {"HTTPS_PROXY": "http://127.0.0.1:8", "https_proxy": proxy, "NO_PROXY": "other.example", "no_proxy": "mirror.example"}
        output = stack.invoke("build", "--orch", "dagster", code=6, **both).stderr
    finally:
        file.write_text(good)
    assert f"proxies: {proxy} mirror.example" in output
    with Arguments() as arguments:
        stack.invoke("build", "--orch", "dagster", HTTPS_PROXY=proxy)
    image = f"{PROJECT}-dagster:local"
    for argv in (["docker", "history", "--no-trunc", image], ["docker", "image", "inspect", image]):
        assert "secret-word" not in subprocess.check_output(argv, text=True)
    assert not [line for line in arguments.seen if "secret-word" in line]


def test_an_image_trusts_the_companys_certificates(stack, tmp_path) -> None:
    folder = tmp_path / "checkout"
    for name in ("certs", "docker", "dbt_project"):
        shutil.copytree(stack.folder / name, folder / name)
    base = python_image()

    def answer(tag: str) -> str:
        """The last line of the error when Python in an image calls the company's server."""
        image = f"{PROJECT}-{tag}:local"
        build = ["docker", "build", "--file", "docker/dagster/Dockerfile", "--target", "base", "--build-arg", f"PYTHON_IMAGE={base}"]
        subprocess.run([*build, "--tag", image, "."], cwd=folder, check=True, capture_output=True)
        ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"
        run = ["docker", "run", "--rm", "--network", "host", image, "python", "-c", ask, opened.url]
        try:
            return subprocess.run(run, capture_output=True, text=True).stderr.splitlines()[-1]
        finally:
            subprocess.run(["docker", "image", "rm", "--force", image], check=True, capture_output=True)

    with company(tmp_path) as opened:
        assert "CERTIFICATE_VERIFY_FAILED" in answer("stranger")
        shutil.copy(opened.root, folder / "certs" / "company.crt")
        assert "HTTP Error 404" in answer("trusting")
