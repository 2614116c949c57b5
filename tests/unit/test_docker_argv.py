"""The exact command line of every call of Docker."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from switchyard import caller
from switchyard.orchestrators import Orchestrator
from switchyard.project import Project
from switchyard.runtimes.docker import argv, engine
from switchyard.runtimes.docker.override import override
from switchyard.settings import Settings

SETTINGS = Settings(Path("/shop"), {}, "switchyard")
FILE = Path("/shop/compose/docker-compose-dagster.yaml")
DAGSTER = Orchestrator(
    name="dagster", title="Dagster", file=FILE, ui_port="DAGSTER_PORT", ui_path="/", login_user=None, login_key=None,
    database="dagster", service="dagster-code", dbt="dagster-code", run=("python", "/opt/run_job.py"), built="dagster-code",
    mounts={"dagster-code": (), "dagster-daemon": ("./dagster.yaml:/dagster.yaml:ro",)},
)  # fmt: skip
SHOP = Project(Path("/shop/dbt_project"), {"name": "shop"}, "shop", "dev", {"type": "postgres"}, shared=True, shop=True)
COMPOSE = ["docker", "compose", "--env-file", os.devnull, "-f"]
ON_DAGSTER = [*COMPOSE, "/shop/compose/docker-compose-dagster.yaml"]
ON_POSTGRES = [*COMPOSE, "/shop/compose/docker-compose-postgres.yaml"]


def posix(words: list[str]) -> list[str]:
    """The list as on POSIX: paths on Windows have backslashes."""
    return [word.replace("\\", "/") for word in words]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param(
            argv.build(SETTINGS, FILE, "dagster-code"),
            [*ON_DAGSTER, "--progress", "plain", "build", "dagster-code"],
            id="build",
        ),
        pytest.param(
            argv.build(SETTINGS, FILE, "dagster-code", cache=False),
            [*ON_DAGSTER, "--progress", "plain", "build", "--no-cache", "dagster-code"],
            id="build --no-cache",
        ),
        pytest.param(
            argv.build(SETTINGS, FILE, "dagster-code", proxies=["HTTPS_PROXY", "no_proxy"]),
            [*ON_DAGSTER, "--progress", "plain", "build", "--build-arg", "HTTPS_PROXY", "--build-arg", "no_proxy", "dagster-code"],
            id="build behind a proxy, whose password stays out of sight",
        ),
        pytest.param(
            argv.build(SETTINGS, FILE, "dagster-code", ssh=True),
            [*ON_DAGSTER, "--progress", "plain", "build", "--ssh", "default", "dagster-code"],
            id="build with packages from git, by SSH",
        ),
        pytest.param(
            argv.up_postgres(SETTINGS, 300),
            [*ON_POSTGRES, "--progress", "plain", "up", "-d", "--no-build", "--wait", "--wait-timeout", "300", "postgres"],
            id="up: PostgreSQL first, without touching an orchestrator",
        ),
        pytest.param(
            argv.up(SETTINGS, DAGSTER, 300),
            [*ON_DAGSTER, "--progress", "plain", "up", "-d", "--no-build", "--wait", "--wait-timeout", "300", "--remove-orphans"],
            id="up: the orchestrator, instead of any other",
        ),
        pytest.param(
            argv.up(SETTINGS, DAGSTER, 60, Path("/shop/.stack/override-dagster.yaml")),
            [*ON_DAGSTER, "-f", "/shop/.stack/override-dagster.yaml", "--progress", "plain",
             "up", "-d", "--no-build", "--wait", "--wait-timeout", "60", "--remove-orphans"],
            id="up --baked",
        ),
        pytest.param(argv.down(SETTINGS, FILE), [*ON_DAGSTER, "--progress", "plain", "down", "--remove-orphans"], id="down"),
        pytest.param(
            argv.logs(SETTINGS, FILE, follow=False, tail=100, service=None), [*ON_DAGSTER, "logs", "--tail", "100"], id="logs"
        ),
        pytest.param(
            argv.logs(SETTINGS, FILE, follow=True, tail=5, service="postgres"),
            [*ON_DAGSTER, "logs", "--tail", "5", "--follow", "postgres"],
            id="logs --follow --service",
        ),
        pytest.param(
            argv.execute(SETTINGS, FILE, "dagster-code", ["python", "/opt/run_job.py", "daily"]),
            [*ON_DAGSTER, "exec", "-T", "dagster-code", "python", "/opt/run_job.py", "daily"],
            id="run",
        ),
        pytest.param(
            argv.execute(
                SETTINGS, argv.postgres_file(SETTINGS), "postgres",
                argv.psql("dbt", "--command", "select 1; -- '$x'"), user="postgres",
            ),
            [*ON_POSTGRES, "exec", "-T", "--user", "postgres", "postgres",
             "psql", "--no-psqlrc", "--username", "dbt", "--dbname", "airflow", "--command", "select 1; -- '$x'"],
            id="sql: one argument, never a shell",
        ),
        pytest.param(
            argv.execute(SETTINGS, argv.postgres_file(SETTINGS), "postgres", argv.psql("dbt"), tty=True, user="postgres"),
            [*ON_POSTGRES, "exec", "--user", "postgres", "postgres", "psql", "--no-psqlrc", "--username", "dbt", "--dbname", "airflow"],
            id="sql on a terminal",
        ),
    ],
)  # fmt: skip
def test_the_arguments_of_docker(argv: list[str], expected: list[str]) -> None:
    assert posix(argv) == expected


def test_only_this_stacks_containers_are_listed() -> None:
    assert argv.ps(Settings(Path("/shop"), {}, "other"))[:6] == [
        "docker",
        "ps",
        "--all",
        "--no-trunc",
        "--filter",
        "label=com.docker.compose.project=other",
    ]


def test_services_are_read_from_dockers_output() -> None:
    text = (
        "0123456789abcdef\tswitchyard-postgres-1\tpostgres\t\t\trunning\tUp 5 minutes (healthy)\t/shop/compose\n"
        "1123456789abcdef\tswitchyard-dagster-code-1\tdagster-code\tdagster\ttrue\trunning\tUp 2 seconds (health: starting)\t\n"
        "2123456789abcdef\tswitchyard-dagster-daemon-1\tdagster-daemon\tdagster\t\texited\tExited (137) 3 minutes ago\t/moved/compose\n"
    )
    (postgres, code, daemon), other = engine.services(text, Path("/shop"))
    assert other == ""
    assert (postgres.name, postgres.orchestrator, postgres.health, postgres.up, postgres.id) == (
        "postgres",
        "",
        "healthy",
        True,
        "0123456789ab",
    )
    assert (code.orchestrator, code.health, code.baked) == ("dagster", "starting", True)
    assert (daemon.health, daemon.up, daemon.status) == ("", False, "Exited (137) 3 minutes ago")


def test_containers_of_another_checkout_are_not_this_stacks(tmp_path) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks.py").touch()
        (tmp_path / name / "compose").mkdir()
        (tmp_path / name / "compose" / "docker-compose-postgres.yaml").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "mine")
    line = "0123456789abcdef\tswitchyard-postgres-1\tpostgres\t\t\trunning\tUp 5 minutes\t{}/compose\n"
    found, other = engine.services(line.format(tmp_path / "linked") + line.format(tmp_path / "other"), tmp_path / "mine")
    assert (len(found), other) == (1, str(tmp_path / "other"))


def test_containers_of_another_application_are_not_this_stacks(tmp_path) -> None:
    for folder in ("mine/compose", "other/compose", "another"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine" / "compose" / "docker-compose-postgres.yaml").touch()
    line = "0123456789abcdef\tapp-postgres-1\tpostgres\t\t\trunning\tUp 5 minutes\t{}\n"
    assert len(engine.services(line.format(tmp_path / "mine" / "compose"), tmp_path / "mine")[0]) == 1
    for folder in ("other/compose", "another"):
        assert engine.services(line.format(tmp_path / folder), tmp_path / "mine") == ([], str(tmp_path / folder))


def test_the_baked_override_removes_only_the_projects_mount() -> None:
    assert override(DAGSTER, SHOP, baked=True) == (
        "services:\n"
        "  dagster-code:\n"
        '    labels: {switchyard.baked: "true"}\n'
        "    volumes: !reset []\n"
        "  dagster-daemon:\n"
        '    labels: {switchyard.baked: "true"}\n'
        '    volumes: !override ["./dagster.yaml:/dagster.yaml:ro"]\n'
    )


def test_a_project_without_variables_or_files_needs_no_override() -> None:
    assert override(DAGSTER, SHOP, baked=False) == ""


def test_the_override_has_names_of_variables_and_never_a_value() -> None:
    project = replace(SHOP, variables={"DBT_ENV_SECRET_TOKEN": "hush"}, files={"SWITCHYARD_FILE_KEY": Path("/home/me/key.pem")})
    text = override(DAGSTER, project, baked=False)
    code = yaml.safe_load(text)["services"]["dagster-code"]
    assert code["environment"] == {name: f"${{SWITCHYARD_VALUE_{name}}}" for name in ("DBT_ENV_SECRET_TOKEN", "SWITCHYARD_FILE_KEY")}
    assert posix(code["volumes"]) == ["/home/me/key.pem:/opt/dbt/files/SWITCHYARD_FILE_KEY:ro"]
    assert "hush" not in text


def test_a_baked_run_keeps_what_the_profile_needs() -> None:
    project = replace(SHOP, shared=False, output={"type": "duckdb", "path": "{{ env_var('SWITCHYARD_WAREHOUSE_PATH') }}/x.duckdb"})
    lines = override(DAGSTER, project, baked=True)
    assert 'volumes: !override ["warehouse-volume:/opt/dbt/warehouse"]' in lines
    assert 'volumes: !override ["./dagster.yaml:/dagster.yaml:ro", "warehouse-volume:/opt/dbt/warehouse"]' in lines
    assert lines.endswith("volumes:\n  warehouse-volume:\n")


def test_a_build_gets_one_spelling_of_each_proxy() -> None:
    environ = {"NO_PROXY": "a", "no_proxy": "b", "HTTPS_PROXY": "c", "http_proxy": "d", "PROXY": "e"}
    assert sorted(caller.proxy_names(environ)) == ["HTTPS_PROXY", "http_proxy", "no_proxy"]
