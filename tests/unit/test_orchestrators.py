"""The compose files are the only place that defines the orchestrators."""

import re
from dataclasses import replace

import pytest
import yaml

from switchyard import bootstrap, orchestrators
from switchyard.errors import BadConfiguration, BadUsage, name_the_shell
from switchyard.settings import Settings

FOURTH = """\
name: switchyard
include: [docker-compose-postgres.yaml]
x-orchestrator:
  title: Fourth
  ui_port: FOURTH_PORT
  ui_path: /ui
  login: {user: admin, password: FOURTH_ADMIN_PASSWORD}
  database: fourth
  service: api
  dbt: worker
  run: [python, run_job.py]
services:
  api:
    build: ..
    volumes: ["${SWITCHYARD_SOURCE_PATH:-../dbt_project}:/opt/dbt/project:ro", "cache:/cache"]
  worker: {}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "compose").mkdir()
    return tmp_path


def write(folder, name, text) -> None:
    (folder / "compose" / f"docker-compose-{name}.yaml").write_text(text)


def test_the_projects_own_files_describe_three(root) -> None:
    assert {"airflow", "dagster", "prefect"} <= orchestrators.load_all(root).keys()


def test_a_fourth_one_needs_no_python(folder) -> None:
    write(folder, "fourth", FOURTH)
    write(folder, "postgres", "services: {postgres: {}}\n")
    fourth = orchestrators.load_all(folder)["fourth"]
    assert (fourth.title, fourth.service, fourth.dbt, fourth.built) == ("Fourth", "api", "worker", "api")
    assert fourth.run == ("python", "run_job.py")
    assert (fourth.login_key, fourth.database_key) == ("FOURTH_ADMIN_PASSWORD", "FOURTH_DB_PASSWORD")
    assert fourth.mounts == {"api": ("cache:/cache",)}


@pytest.mark.parametrize(
    ("name", "sign_in"),
    [
        ("airflow", "user admin, password: AIRFLOW_ADMIN_PASSWORD in .env"),
        ("dagster", "user admin, password: DAGSTER_ADMIN_PASSWORD in .env"),
        ("prefect", "admin:<password> in one field, password: PREFECT_ADMIN_PASSWORD in .env"),
    ],
)
def test_the_sign_in_is_described_as_the_page_asks_for_it(root, name, sign_in) -> None:
    ports = {"POSTGRES_PORT": "1", "AIRFLOW_PORT": "2", "DAGSTER_PORT": "3", "PREFECT_PORT": "4"}
    shown = dict(orchestrators.load_all(root)[name].access(ports, "my_shop"))
    assert shown["Sign-in"] == sign_in
    assert "database my_shop," in shown["PostgreSQL"]
    assert "PostgreSQL" not in dict(orchestrators.load_all(root)[name].access(ports, None))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("services: [}", "line 1", id="not YAML"),
        pytest.param(FOURTH.replace("  title: Fourth\n", ""), "title", id="a key is missing"),
        pytest.param(FOURTH.replace("    build: ..\n", ""), "build", id="nothing builds the image"),
        pytest.param(
            FOURTH.replace('"cache:/cache"', "{type: volume, source: cache, target: /cache}"), "source:target", id="a long volume"
        ),
    ],
)
def test_a_broken_file_is_reported_with_the_reason(folder, text, reason) -> None:
    write(folder, "fourth", text)
    with pytest.raises(BadConfiguration, match="docker-compose-fourth") as caught:
        orchestrators.load_all(folder)
    assert reason in caught.value.why


@pytest.mark.parametrize(
    ("text", "reason"), [("services: [}", "line 1"), ("run: [python]", "requirements")], ids=["not YAML", "a key is missing"]
)
def test_a_broken_native_file_is_reported_with_the_reason(folder, text, reason) -> None:
    write(folder, "fourth", FOURTH)
    assert orchestrators.load_all(folder)["fourth"].native is None
    (folder / "docker" / "fourth").mkdir(parents=True)
    (folder / "docker" / "fourth" / "native.yaml").write_text(text)
    with pytest.raises(BadConfiguration, match=r"docker/fourth/native\.yaml") as caught:
        orchestrators.load_all(folder)
    assert reason in caught.value.why


@pytest.mark.parametrize("missing", ["FOURTH_PORT", "FOURTH_ADMIN_PASSWORD", "FOURTH_DB_PASSWORD"])
def test_a_missing_setting_is_reported(folder, missing) -> None:
    write(folder, "fourth", FOURTH)
    known = orchestrators.load_all(folder)
    keys = {"FOURTH_PORT", "FOURTH_ADMIN_PASSWORD", "FOURTH_DB_PASSWORD"}
    orchestrators.require_keys(known, keys)
    with pytest.raises(BadConfiguration, match=missing) as caught:
        orchestrators.require_keys(known, keys - {missing})
    assert f".env.example: {missing}=" in caught.value.next


def test_a_product_needs_no_database(folder) -> None:
    write(folder, "fourth", FOURTH.replace("  database: fourth\n", ""))
    fourth = orchestrators.load_all(folder)["fourth"]
    assert fourth.keys == ["FOURTH_PORT", "FOURTH_ADMIN_PASSWORD"]
    script = bootstrap.sql(Settings(folder, {"POSTGRES_PASSWORD": "a", "DBT_PASSWORD": "b", "LOCK_TIMEOUT": "0"}, "p"), [fourth])
    assert "fourth" not in script


def test_every_secret_of_an_orchestrator_is_kept_from_dbt(root) -> None:
    for orchestrator in orchestrators.load_all(root).values():
        services = yaml.safe_load(orchestrator.file.read_text())["services"].values()
        running_dbt = [service["environment"] for service in services if "DBT_ENV_SECRET_PASSWORD" in service.get("environment", {})]
        assert running_dbt
        for environment in running_dbt:
            secret = {key for key, value in environment.items() if re.search(r"\$\{\w+_(PASSWORD|KEY|SECRET|WEBHOOK)\b", str(value))}
            assert secret - set(environment["SWITCHYARD_SECRETS"].split()) == {"DBT_ENV_SECRET_PASSWORD"}


def test_a_setting_with_an_unknown_orchestrator_is_reported() -> None:
    with pytest.raises(BadUsage) as caught:
        orchestrators.find({"dagster": None}, "dagstre", "ORCHESTRATOR")
    name_the_shell(caught.value, {"ORCHESTRATOR": "dagstre"})
    assert "ORCHESTRATOR is set in your shell" in caught.value.next


def test_a_misspelt_name_gets_the_nearest_one(root) -> None:
    with pytest.raises(BadUsage) as caught:
        orchestrators.find(orchestrators.load_all(root), "dagstre")
    assert "Did you mean dagster?" in caught.value.why


@pytest.mark.parametrize("name", ["--help", "-h", "--dry", "", "../x", "DAGSTER; rm -rf /"])
def test_an_invalid_name_is_refused(root, name) -> None:
    with pytest.raises(BadUsage):
        orchestrators.find(orchestrators.load_all(root), name)


@pytest.mark.parametrize(
    ("services", "groups"),
    [
        pytest.param(["prefect-server", "prefect-worker"], [["prefect-worker"], ["prefect-server"]], id="one deregisters at the other"),
        pytest.param(["dagster-code", "dagster-daemon"], [["dagster-code", "dagster-daemon"]], id="independent services stop together"),
        pytest.param(
            ["prefect-server", "gone"], [["prefect-server", "gone"]], id="a server whose worker is stopped, and an unknown service"
        ),
        pytest.param([], [], id="nothing runs"),
    ],
)
def test_a_service_is_stopped_before_those_that_it_needs(root, services, groups) -> None:
    assert orchestrators.stop_order(services, orchestrators.load_all(root).values()) == groups


def test_services_that_need_each_other_are_stopped_together(folder) -> None:
    write(folder, "fourth", FOURTH)
    circle = replace(orchestrators.load_all(folder)["fourth"], after={"a": ("b",), "b": ("a",)})
    assert orchestrators.stop_order(["a", "b"], [circle]) == [["a", "b"]]


@pytest.mark.parametrize(("name", "more"), [("airflow", 2), ("dagster", 2), ("prefect", 1)])
def test_each_worker_needs_memory_and_the_permanent_one_is_counted_once(root, name, more) -> None:
    one = orchestrators.load_all(root)[name]
    assert one.memory_with(0) == one.memory
    assert one.memory_with(2) == one.memory + more * one.worker_memory
