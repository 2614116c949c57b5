"""The native runtime's commands and variables as values; and which of the two runtimes a command uses."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard import orchestrators, settings
from switchyard import project as projects
from switchyard.errors import AlreadyActive, BadConfiguration, BadUsage, EngineMissing
from switchyard.orchestrators import NativeBlock, Orchestrator, ProcessSpec
from switchyard.project import Project
from switchyard.runner import Runner
from switchyard.runtimes import choice
from switchyard.runtimes.native import plan
from switchyard.runtimes.native.host import Host
from switchyard.runtimes.native.processes import StartedProcess
from switchyard.settings import Settings

VALUES = {
    "POSTGRES_PORT": "15432", "SHOP_PORT": "3000", "DBT_PASSWORD": "d{root}b$t",
    "SCHEDULES_ENABLED": "false", "EMPTY": "", "RUNTIME": "auto", "SWITCHYARD_SOURCE_PATH": str(Path("/checkout/dbt_project")),
}  # fmt: skip
SETTINGS = Settings(Path("/checkout"), VALUES, "p")
FOLDERS = plan.Folders(Path("/checkout"), "shop")
API = ProcessSpec(
    service="shop-api",
    command=("server", "--port={port:api}", "--ui=${SHOP_PORT:-80}"),
    health=("python", "{code}/healthcheck.py", "{port:api}"),
    container={"DB": "postgres:5432", "MODE": "fast", "PASSWORD": "${DBT_PASSWORD:?is missing}", "DBT_HOST": "postgres"},
    environment={"DB": "127.0.0.1:${POSTGRES_PORT:-5432}", "HOME_OF": "{home}", "PEER": "{port:peer}"},
    after=(),
)
SHOP = Orchestrator(
    name="shop", title="Shop", file=Path("/checkout/compose/docker-compose-shop.yaml"), ui_port="SHOP_PORT", ui_path="/",
    login_user=None, login_key=None, database="shop", service="shop-api", dbt="shop-api", run=("python", "run_job.py"), built="shop-api",
    mounts={},
    native=NativeBlock(
        requirements=("requirements.txt", "requirements-dbt.txt"), home=(), unsupported={}, environment={"AT_BUILD": "{environment}"},
        run=("python", "{code}/run_job.py"), processes=(API,),
    ),
)  # fmt: skip
PROJECT = Project(Path("/checkout/dbt_project"), {"name": "shop"}, "shop", "dev", {"type": "postgres"}, shared=True, shop=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${SHOP_PORT}", "3000"),
        ("http://127.0.0.1:${SHOP_PORT:-80}/x", "http://127.0.0.1:3000/x"),
        ("${MISSING:-80}", "80"),
        ("${EMPTY:-80}", "80"),
        ("${EMPTY}", ""),
        ("${EMPTY?is missing}", ""),
        ("${COMPOSE_PROJECT_NAME}", "p"),
        ("a${SHOP_PORT:+-b,}c", "a-b,c"),
        ("a${EMPTY:+-b,}c${MISSING:+-b}", "ac"),
        ("$$HOME", "$HOME"),
        ("--port={port:code}", "--port=4266"),
        ("{root}", str(Path("/checkout"))),
        ("{code}", str(Path("/checkout/docker/shop"))),
        ("{home}", str(Path("/checkout/.stack/native/data/shop"))),
        ("{environment}", str(Path("/checkout/.stack/native/environments/shop"))),
        pytest.param("${DBT_PASSWORD}", "d{root}b$t", id="a value is not read for placeholders again"),
        pytest.param('{"a": 1}', '{"a": 1}', id="JSON is left alone"),
    ],
)
def test_a_placeholder_is_filled_in(text, expected) -> None:
    assert plan.expand(text, SETTINGS, FOLDERS, {"code": 4266}) == expected


@pytest.mark.parametrize("text", ["{hom}", "{root:x}", "{port}"])
def test_an_unknown_placeholder_is_reported(text) -> None:
    with pytest.raises(BadConfiguration, match=r"docker/shop/native\.yaml has ") as caught:
        plan.expand(f"a{text}b", SETTINGS, FOLDERS, {})
    assert text in caught.value.what


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("${MISSING}", "MISSING has no value.", "Add a line MISSING=... to .env.example"),
        ("${MISSING?is missing}", "MISSING is missing.", "Add a line MISSING=... to .env.example"),
        ("${EMPTY:?is missing}", "EMPTY is missing.", "Set EMPTY in .env."),
    ],
)
def test_a_setting_that_must_have_a_value_is_reported_without_one(text, what, hint) -> None:
    with pytest.raises(BadConfiguration) as caught:
        plan.expand(f"a{text}b", SETTINGS, FOLDERS, {})
    assert caught.value.what == what
    assert caught.value.next.startswith(hint)


def test_a_file_that_is_not_there_is_reported(tmp_path) -> None:
    with pytest.raises(BadConfiguration, match=r"docker/shop/shop\.cfg is missing"):
        plan.Folders(tmp_path, "shop").file("shop.cfg", "")


@given(st.text(alphabet=st.characters(exclude_characters="${}"), max_size=40))
def test_text_without_placeholders_is_unchanged(text) -> None:
    assert plan.expand(text, SETTINGS, FOLDERS, {}) == text


def test_the_ports_of_a_command_are_filled_in_and_listed() -> None:
    assert plan.argv(SETTINGS, SHOP, API.command, {"api": 5}) == ["server", "--port=5", "--ui=3000"]
    assert plan.port_names(SHOP) == ["api", "peer"]


@pytest.mark.parametrize("name", ["airflow", "dagster", "prefect"])
def test_the_projects_own_blocks_can_be_filled_in(root, name) -> None:
    orchestrator = orchestrators.load_all(root)[name]
    native = orchestrator.native
    loaded = settings.defaults(root, {})
    project = projects.load(loaded, {})
    picked = {port: 4000 + number for number, port in enumerate(plan.port_names(orchestrator))}
    assert orchestrator.service in [process.service for process in native.processes]
    for process in native.processes:
        words = plan.argv(loaded, orchestrator, [*process.command, *process.health, *native.run], picked)
        values = plan.process_variables(loaded, orchestrator, process, picked, {"PATH": "/bin"}, project).values()
        assert not [text for text in (*words, *values) if "{" in text or "$" in text]
        assert not [text for text in (*words, *values) if "/opt/" in text or "@postgres:" in text or "0.0.0.0" in text]


def test_the_environment_is_the_containers_with_the_native_differences() -> None:
    env = plan.process_variables(SETTINGS, SHOP, API, {"peer": 9}, {"PATH": "/bin", "LANG": "C"}, PROJECT)
    assert (env["DB"], env["MODE"], env["PASSWORD"], env["DBT_HOST"]) == ("127.0.0.1:15432", "fast", "d{root}b$t", "127.0.0.1")
    assert (env["PEER"], env["LANG"], env["DBT_ENV_SECRET_PASSWORD"]) == ("9", "C", "d{root}b$t")
    folders = [FOLDERS.virtualenv(name) / plan.scripts() for name in ("requirements.txt", "requirements-dbt.txt")]
    assert env["PATH"].split(os.pathsep) == [*map(str, folders), "/bin"]


def test_the_users_own_variables_do_not_reach_a_process() -> None:
    own = {"DBT_TARGET": "prod", "PYTHONPATH": "/mine", "PGHOST": "prod", "VIRTUAL_ENV": "/v", "AIRFLOW_HOME": "/a", "HTTPS_PROXY": "p"}
    env = plan.process_variables(SETTINGS, SHOP, API, {}, {"PATH": "/bin", **own}, PROJECT)
    assert not (own.keys() - {"PYTHONPATH", "DBT_TARGET"}) & env.keys()
    assert (env["PYTHONPATH"], env["DBT_TARGET"]) == (str(FOLDERS.library), "dev")


def test_nothing_is_written_into_the_project() -> None:
    env = plan.process_variables(SETTINGS, SHOP, None, {}, {}, PROJECT)
    assert {key for key, value in env.items() if Path(value) == Path("/checkout/dbt_project")} == {"SWITCHYARD_SOURCE_PATH"}
    assert env["DBT_PROJECT_DIR"] == str(FOLDERS.installed / "target" / "project")
    assert env["AT_BUILD"] == str(FOLDERS.installed)


def test_a_project_with_its_own_warehouse_gets_no_variables_of_the_stacks_connection() -> None:
    own = replace(PROJECT, shared=False, shop=False, variables={"TOKEN": "hush"}, files={"SWITCHYARD_FILE_KEY": Path("/key")})
    env = plan.process_variables(SETTINGS, SHOP, None, {}, {}, own)
    assert not {"DBT_HOST", "DBT_USER", "DBT_ENV_SECRET_PASSWORD"} & env.keys()
    assert (env["TOKEN"], env["SWITCHYARD_FILE_KEY"]) == ("hush", str(Path("/key")))


@pytest.mark.parametrize(
    ("argv", "env", "build"), [(["b"], {"K": "v"}, "1"), (["a"], {"K": "w"}, "1"), (["a"], {"K": "v"}, "2"), (["a", "K"], {}, "1")]
)
def test_the_fingerprint_changes_with_every_difference(argv, env, build) -> None:
    assert plan.launch_fingerprint(argv, env, build) != plan.launch_fingerprint(["a"], {"K": "v"}, "1")


def test_the_fingerprint_does_not_depend_on_the_order() -> None:
    assert plan.launch_fingerprint([], {"a": "1", "b": "2"}, "") == plan.launch_fingerprint([], {"b": "2", "a": "1"}, "")


def machine(*, engine: bool, up: str | None = None, setting: str = "auto", data: str = ""):
    """Fakes of the two runtimes on a machine; ``up`` and ``data`` have the names of those that are up, and that have data."""

    def require(*, starting: bool) -> str:
        if not engine:
            raise EngineMissing("Docker not found.")
        return "26.1"

    docker = SimpleNamespace(
        name="docker",
        require=require,
        running=lambda: "docker" in (up or ""),
        data=SimpleNamespace(exists=lambda: "docker" in data, noted=lambda: "docker" in data),
    )
    native = SimpleNamespace(
        name="native",
        running=lambda: "native" in (up or ""),
        data=SimpleNamespace(exists=lambda: "native" in data),
        settings={"RUNTIME": setting},
    )
    return docker, native


@pytest.mark.parametrize(
    ("engine", "up", "setting", "asked", "data", "expected"),
    [
        pytest.param(True, None, "auto", None, "", "docker", id="auto takes Docker"),
        pytest.param(False, None, "auto", None, "", "native", id="auto without an engine"),
        pytest.param(True, None, "native", None, "", "native", id="as in .env"),
        pytest.param(True, None, "native", "docker", "", "docker", id="the flag wins over .env"),
        pytest.param(True, "native", "auto", None, "docker", "native", id="what is up is kept, though an engine answers now"),
        pytest.param(True, "docker", "auto", None, "native", "docker", id="Docker is up"),
        pytest.param(True, None, "auto", None, "docker", "docker", id="the data is in Docker"),
        pytest.param(True, None, "auto", None, "native", "native", id="the data is native"),
        pytest.param(False, None, "auto", None, "docker native", "native", id="both have data, and one can be started"),
        pytest.param(False, None, "auto", "native", "docker", "native", id="an empty one, by the flag"),
    ],
)
def test_the_runtime_of_a_command(engine, up, setting, asked, data, expected) -> None:
    chosen, reason = choice.choose(*machine(engine=engine, up=up, setting=setting, data=data), asked, starting=True)
    assert chosen.name == expected
    assert bool(reason) == (asked is None and (not engine or (data == "native" and not up)))


def test_no_empty_stack_is_started_instead_of_one_with_data() -> None:
    for starting in (True, False):  # other commands must not report that nothing is up
        with pytest.raises(EngineMissing, match="The data of this stack is in Docker") as caught:
            choice.choose(*machine(engine=False, data="docker"), None, starting=starting)
        assert "invoke up --runtime native" in caught.value.next


def test_data_in_docker_is_mentioned_while_its_engine_is_down() -> None:
    chosen, reason = choice.choose(*machine(engine=False, data="docker native"), None, starting=True)
    assert (chosen.name, "the data in Docker is unchanged" in reason) == ("native", True)


def test_auto_does_not_guess_which_data_is_meant() -> None:
    with pytest.raises(BadUsage, match="Both runtimes have data"):
        choice.choose(*machine(engine=True, data="docker native"), None, starting=True)


def test_both_runtimes_are_reported_if_both_are_up() -> None:
    chosen, reason = choice.choose(*machine(engine=True, up="docker native"), None)
    assert (chosen.name, "Both runtimes are up" in reason) == ("native", True)
    with pytest.raises(AlreadyActive, match="native and on docker"):
        choice.choose(*machine(engine=True, up="docker native"), None, starting=True)


@pytest.mark.parametrize(("up", "asked"), [("docker", "native"), ("native", "docker")])
def test_one_is_refused_while_the_other_is_up(up, asked) -> None:
    with pytest.raises(AlreadyActive, match=f"up on the runtime {up}") as caught:
        choice.choose(*machine(engine=True, up=up), asked, starting=True)
    assert caught.value.next == "invoke down"


@pytest.mark.parametrize(("up", "setting"), [("docker", "native"), ("native", "docker")])
def test_other_commands_use_the_runtime_that_is_up(up, setting) -> None:
    assert choice.choose(*machine(engine=True, up=up, setting=setting), None)[0].name == up
    with pytest.raises(AlreadyActive):
        choice.choose(*machine(engine=True, up=up, setting=setting), None, starting=True)


def test_docker_by_the_flag_is_not_replaced() -> None:
    with pytest.raises(EngineMissing):
        choice.choose(*machine(engine=False), "docker")


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(BadUsage, match="podman"):
        choice.choose(*machine(engine=True), "podman")


def test_an_orchestrator_whose_native_file_was_deleted_while_it_ran_is_not_healthy() -> None:
    gone = replace(SHOP, native=None)
    record = StartedProcess("shop-api", "shop", 1, 0.0, {}, "")
    assert not Host(SETTINGS, {"shop": gone}, Runner({}), {}).well(gone, record)
    with pytest.raises(BadConfiguration, match=r"There is no docker/shop/native\.yaml"):
        plan.port_names(gone)
