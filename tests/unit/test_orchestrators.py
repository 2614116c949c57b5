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
    labels: {switchyard.orchestrator: fourth}
    volumes: ["${SWITCHYARD_SOURCE_PATH:-../dbt_project}:/opt/dbt/project:ro", "cache:/cache"]
  worker: {labels: [switchyard.orchestrator=fourth]}
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
        pytest.param(FOURTH.replace("x-orchestrator", "x-orchestrater"), "did you mean x-orchestrator?", id="a misspelt block"),
        pytest.param(FOURTH.replace("database:", "databse:"), "did you mean database?", id="a misspelt key"),
        pytest.param(FOURTH.replace("user:", "usr:"), "did you mean user?", id="a misspelt key of the sign-in"),
        pytest.param(FOURTH.replace("service: api", "service: apj"), "did you mean api?", id="no such service"),
        pytest.param(FOURTH.replace("dbt: worker", "dbt: workers"), "did you mean worker?", id="no such service for dbt"),
        pytest.param(FOURTH.replace("[python, run_job.py]", "python run_job.py"), "run is not a list", id="a text as a list"),
        pytest.param(FOURTH.replace("run_job.py", "80"), "write it in quotes", id="a number as a text"),
        pytest.param(FOURTH.replace("FOURTH_PORT", "80"), "ui_port is not a text", id="a port in place of its key"),
        pytest.param(FOURTH.replace("  database:", "  memory: 1 GB\n  database:"), "memory is not a number of MiB", id="a unit"),
        pytest.param(FOURTH.replace("worker: {", "worker: {volumes: a:b, "), "worker: volumes is not a list", id="a text as volumes"),
        pytest.param(FOURTH[: FOURTH.index("{labels: [")], "worker is not a mapping", id="an empty service"),
        pytest.param(FOURTH.replace("worker: {", "worker: {depends_on: {api: }, "), "api is not a mapping", id="an empty dependency"),
        pytest.param(FOURTH.replace("{switchyard.orchestrator: fourth}", "{}"), "api does not have the label", id="no label"),
        pytest.param(FOURTH.replace("or: fourth}", "or: forth}"), "orchestrator: fourth, but forth", id="another name in the label"),
        pytest.param(FOURTH.replace("or=fourth", "s=fourth"), "worker does not have the label", id="a misspelt label where dbt runs"),
        pytest.param(FOURTH + "  more: {deploy: {replicas: 0}}\n", "more does not have the label", id="no label of a worker"),
        pytest.param(FOURTH + "  more: {labels: [switchyard.orchestrator=api]}\n", "but api", id="a sidecar of another one"),
        pytest.param(FOURTH.replace("project:ro", "project"), "api mounts the dbt project in another form", id="a mount to write to"),
        pytest.param(FOURTH.replace("project:ro", "project/:ro"), "another form", id="a mount with a slash at its end"),
        pytest.param(FOURTH.replace("project:ro", "project:ro,z"), "another form", id="a mount with other options"),
        pytest.param("- a", "the file is not a mapping", id="a list"),
    ],
)
def test_a_broken_file_is_reported_with_the_reason(folder, text, reason) -> None:
    write(folder, "fourth", text)
    with pytest.raises(BadConfiguration, match="docker-compose-fourth") as caught:
        orchestrators.load_all(folder)
    assert reason in caught.value.why


NATIVE = """\
requirements: [requirements.txt]
run: [python, run_job.py]
services:
  api: {command: [server], health: [check]}
  worker: {command: [worker], health: [check]}
"""


def write_native(folder, text) -> None:
    (folder / "docker" / "fourth").mkdir(parents=True)
    (folder / "docker" / "fourth" / "native.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("services: [}", "line 1", id="not YAML"),
        pytest.param(NATIVE.replace("requirements: [requirements.txt]\n", ""), "requirements", id="a key is missing"),
        pytest.param(NATIVE.replace("[requirements.txt]", "requirements.txt"), "requirements is not a list", id="a text as a list"),
        pytest.param(NATIVE.replace("[server]", "server"), "api: command is not a list", id="a text as a command"),
        pytest.param(NATIVE.replace("command: [server], ", ""), "api: command", id="no command"),
        pytest.param(NATIVE + "enviroment: {}\n", "did you mean environment?", id="a misspelt key"),
        pytest.param(NATIVE.replace("health: [check]", "helth: [check]"), "did you mean health?", id="a misspelt key of a service"),
        pytest.param(NATIVE.replace("worker: {", "wroker: {"), "wroker is no service of compose", id="a misspelt service"),
        pytest.param(NATIVE[: NATIVE.index("  api")] + NATIVE[NATIVE.index("  worker") :], "the service api of compose", id="no service"),
        pytest.param(NATIVE + "  sidecar: {command: [a], health: [b]}\n", "sidecar of compose/docker-compose-fourth.yaml", id="no label"),
        pytest.param(NATIVE + "environment: {A: }\n", "the variable A has no value", id="a variable without a value"),
        pytest.param(NATIVE + "environment: A=b\n", "environment is not a mapping", id="a text as variables"),
        pytest.param(NATIVE + "unsupported: win32\n", "unsupported is not a mapping", id="a text as a mapping"),
    ],
)
def test_a_broken_native_file_is_reported_with_the_reason(folder, text, reason) -> None:
    write(folder, "fourth", FOURTH + "  sidecar: {image: other}\n")
    assert orchestrators.load_all(folder)["fourth"].native is None
    write_native(folder, text)
    with pytest.raises(BadConfiguration, match=r"docker/fourth/native\.yaml") as caught:
        orchestrators.load_all(folder)
    assert reason in caught.value.why


def test_a_service_that_runs_only_with_workers_is_not_native(folder) -> None:
    write(folder, "fourth", FOURTH + "  scaled: {labels: [switchyard.orchestrator=fourth], deploy: {replicas: 0}}\n")
    write_native(folder, NATIVE + "  scaled: {command: [worker], health: [check]}\n")
    with pytest.raises(BadConfiguration) as caught:
        orchestrators.load_all(folder)
    assert "scaled is no service of compose/docker-compose-fourth.yaml that runs without workers" in caught.value.why


def test_a_limit_of_resources_makes_no_worker(folder) -> None:
    limits = "{deploy: {resources: {limits: {cpus: '2'}}}}"
    write(folder, "fourth", FOURTH.replace("    build: ..", f"    build: ..\n    {limits[1:-1]}") + f"  shown: {limits}\n")
    fourth = orchestrators.load_all(folder)["fourth"]
    assert (fourth.services, fourth.scaled, fourth.worker) == (("api", "worker", "shown"), (), "")


@pytest.mark.parametrize(
    ("needs", "after"), [("[api]", ()), ("{api: {condition: service_healthy}}", ("api",))], ids=["as a list", "as a mapping"]
)
def test_both_forms_of_compose_can_be_read(folder, needs, after) -> None:
    write(folder, "fourth", FOURTH.replace("worker: {", f"worker: {{depends_on: {needs}, environment: [A=b=c, D=], "))
    write_native(folder, NATIVE + "environment: {E: 1, F: true}\n")
    fourth = orchestrators.load_all(folder)["fourth"]
    worker = fourth.process("worker")
    assert (fourth.after["worker"], worker.after) == (("api",), after)
    assert (worker.container, worker.environment) == ({"A": "b=c", "D": ""}, {"E": "1", "F": "true"})


@pytest.mark.parametrize("name", ["my-fourth", "4th", "Fourth"])
def test_a_name_that_cannot_be_part_of_a_variable_is_refused(folder, name) -> None:
    write(folder, name, FOURTH)
    with pytest.raises(BadConfiguration, match=name):
        orchestrators.load_all(folder)


def test_a_compose_file_without_the_block_is_mentioned(folder) -> None:
    write(folder, "fourth", FOURTH)
    write(folder, "huey", "services: {huey: {}}\n")
    with pytest.raises(BadUsage) as caught:
        orchestrators.find(orchestrators.load_all(folder), "huey")
    assert "compose/docker-compose-huey.yaml has no block x-orchestrator" in caught.value.why


@pytest.mark.parametrize("missing", ["FOURTH_PORT", "FOURTH_ADMIN_PASSWORD", "FOURTH_DB_PASSWORD"])
def test_a_missing_setting_is_reported(folder, missing) -> None:
    write(folder, "fourth", FOURTH)
    known = orchestrators.load_all(folder)
    values = {"FOURTH_PORT": "1234", "FOURTH_ADMIN_PASSWORD": "<password>", "FOURTH_DB_PASSWORD": "<password>"}
    orchestrators.require_keys(known, values)
    with pytest.raises(BadConfiguration, match=missing) as caught:
        orchestrators.require_keys(known, {key: value for key, value in values.items() if key != missing})
    assert f".env.example: {missing}=" in caught.value.next
    with pytest.raises(BadConfiguration, match=missing) as caught:
        orchestrators.require_keys(known, {**values, missing: ""})
    assert caught.value.next == f"Write {missing}={values[missing]} in .env.example."


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


def test_a_setting_with_an_unknown_orchestrator_is_reported(root) -> None:
    with pytest.raises(BadUsage) as caught:
        orchestrators.find(orchestrators.load_all(root), "dagstre", "ORCHESTRATOR")
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


def test_a_service_and_a_variable_for_docker_alone_are_accepted(folder) -> None:
    write(
        folder, "fourth", FOURTH.replace("worker: {", "worker: {environment: {FROM_THE_SHELL: , OWN: 1}, ") + "  sidecar: {image: other}\n"
    )
    write_native(folder, NATIVE)
    processes = {process.service: process for process in orchestrators.load_all(folder)["fourth"].native_block.processes}
    assert processes.keys() == {"api", "worker"}
    assert processes["worker"].container == {"OWN": "1"}
