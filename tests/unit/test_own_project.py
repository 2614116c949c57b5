"""A user's own dbt project: which profile is used, what reaches dbt, what no file or image gets, and that nothing is written into it."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from rundbt import project_files
from switchyard import project as projects
from switchyard import python_packages, settings
from switchyard.errors import BadConfiguration
from switchyard.project import Project

ENVIRON = {"PATH": "/bin"}  # of a user who has set nothing
SNOWFLAKE = {"type": "snowflake", "account": "ab1", "user": "ann", "password": "hush"}
CALL = re.compile(r"\{\{ env_var\('(\w+)'\) \}\}")


@pytest.fixture
def checkout(tmp_path, root, monkeypatch) -> Path:
    """The files of a checkout that are needed to read a project, and an empty home."""
    folder = tmp_path / "checkout"
    (folder / "docker" / "airflow").mkdir(parents=True)
    for name in (".env.example", "docker/airflow/requirements-dbt.txt"):
        shutil.copy(root / name, folder / name)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return folder


@pytest.fixture
def jaffle(tmp_path) -> Path:
    """A project with nothing but its name."""
    return write(tmp_path / "jaffle", {"dbt_project.yml": "name: jaffle\n"})


def write(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def profile(output: object, target: str = "dev") -> str:
    return yaml.safe_dump({"jaffle": {"target": target, "outputs": {"dev": output}}})


def configured(checkout: Path, place: Path, **values: str) -> settings.Settings:
    return settings.load(checkout, {"DBT_PROJECT": str(place), **values})[0]


def load(checkout: Path, place: Path, environ: dict[str, str] = ENVIRON, **values: str) -> Project:
    return projects.load(configured(checkout, place, **values), environ)


def test_a_copy_is_the_same_project_on_the_shared_server(checkout, tmp_path) -> None:
    place = write(
        tmp_path / "all" / "jaffle",
        {
            "dbt_project.yml": "name: jaffle\nvars: {day: \"{{ env_var('DAY') }}\"}\n",
            "packages.yml": "packages: [{local: ../shared}, {local: inside}]\n",
            "inside/dbt_project.yml": "name: inside\n",
            "profiles.yml": profile({"type": "postgres", "host": "localhost", "password": "hush", "schema": "mine", "threads": 2}),
            "models/a.sql": "select 1",
            "target/manifest.json": "{}",
            ".env": "DAY=monday\n",
        },
    )
    write(tmp_path / "all", {"shared/dbt_project.yml": "name: shared\n", "other/secret.txt": "hush"})
    found = load(checkout, place)
    values = projects.duplicate(found, tmp_path / "copy")
    copied = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    inside = {"dbt_project.yml", "packages.yml", "inside/dbt_project.yml", "profiles.yml", "models/a.sql"}
    assert copied == {f"jaffle/{name}" for name in inside} | {"shared/dbt_project.yml"}
    assert "hush" not in (tmp_path / "copy" / "jaffle" / "profiles.yml").read_text(encoding="utf-8")
    same = load(checkout, Path(values.pop("DBT_PROJECT")), {**ENVIRON, **values}, **values)
    assert (same.shared, same.database, same.profiles, same.variables) == (True, found.database, found.profiles, {"DAY": "monday"})


def refused(checkout: Path, place: Path, **values: str) -> str:
    with pytest.raises(BadConfiguration) as caught:
        load(checkout, place, **values)
    return caught.value.why


def rendered(found: Project) -> dict:
    """The connection as dbt sees it."""
    values = {**found.variables, **{key: str(path) for key, path in found.files.items()}}

    def filled(value):
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return CALL.sub(lambda match: values[match[1]], value) if isinstance(value, str) else value

    return filled(yaml.safe_load(found.profiles)[found.profile]["outputs"][found.target])


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and modification time."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in [folder, *folder.rglob("*")]}


# Which profile, and which target of it


def test_the_nearest_profile_with_the_right_name_is_used(checkout, jaffle, tmp_path) -> None:
    places = {"project": jaffle, "named": tmp_path / "named", "home": tmp_path / "home" / ".dbt"}
    for name, folder in places.items():
        write(folder, {"profiles.yml": profile({**SNOWFLAKE, "schema": name})})

    def found() -> str:
        return load(checkout, jaffle, DBT_PROFILES_DIR=str(tmp_path / "named")).output["schema"]

    assert found() == "project"
    (jaffle / "profiles.yml").write_text("other: {target: dev, outputs: {dev: {type: duckdb}}}\n")
    assert found() == "named"
    (tmp_path / "named" / "profiles.yml").unlink()
    assert found() == "home"


def test_a_profiles_folder_is_relative_to_the_checkout_like_the_projects(checkout, jaffle) -> None:
    write(checkout / "mine", {"profiles.yml": profile(SNOWFLAKE)})
    assert load(checkout, jaffle, DBT_PROFILES_DIR="mine").adapter == "snowflake"


def test_the_profile_and_the_target_may_come_from_variables(checkout, jaffle) -> None:
    write(jaffle, {"dbt_project.yml": "name: x\nprofile: \"{{ env_var('PROFILE') }}\"\n"})
    write(jaffle, {"profiles.yml": profile(SNOWFLAKE, "{{ env_var('ENVIRONMENT', 'dev') }}")})
    assert load(checkout, jaffle, {"PROFILE": "jaffle"}).target == "dev"


def test_the_target_in_the_settings_wins_over_that_of_the_profile(checkout, jaffle) -> None:
    outputs = {"dev": SNOWFLAKE, "prod": {"type": "bigquery", "method": "oauth"}}
    write(jaffle, {"profiles.yml": yaml.safe_dump({"jaffle": {"target": "dev", "outputs": outputs}})})
    assert (load(checkout, jaffle).adapter, load(checkout, jaffle, DBT_TARGET="prod").adapter) == ("snowflake", "bigquery")
    why = refused(checkout, jaffle, DBT_TARGET="prd")
    assert "no target 'prd' (DBT_TARGET in .env); its targets are dev, prod. Did you mean prod?" in why
    assert str(jaffle / "profiles.yml") in why


@pytest.mark.parametrize(("kind", "near"), [("snowfalke", "snowflake"), ("dukcdb", "duckdb"), ("snowflake", None), ("dremio", None)])
def test_a_misspelt_adapter_is_reported(checkout, jaffle, kind, near) -> None:
    write(jaffle, {"profiles.yml": profile({"type": kind, "account": "a"})})
    assert load(checkout, jaffle).notes == ((f"the profile's type is {kind}; did you mean {near}?",) if near else ())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("jaffle: {target: dev, outputs: {dev: {host: x}}}", id="no type"),
        pytest.param("jaffle: {target: dev, outputs: {dev: }}", id="nothing"),
        pytest.param("jaffle: {target: dev, outputs: {dev: hello}}", id="no mapping"),
        pytest.param("jaffle: {target: dev, outputs: [dev]}", id="a list of outputs"),
        pytest.param("jaffle: {target: dev, outputs: {1: {type: duckdb}}}", id="a number for a name"),
        pytest.param("jaffle: {target: dev}", id="no outputs"),
    ],
)
def test_an_invalid_profile_is_reported(checkout, jaffle, text) -> None:
    write(jaffle, {"profiles.yml": text})
    assert re.search("has no (type|target)", refused(checkout, jaffle))


@pytest.mark.parametrize("text", ["jaffle: [}", "jaffle: {since: 2026-02-30}"])
def test_a_profile_that_cannot_be_read_is_reported(checkout, jaffle, text) -> None:
    write(jaffle, {"profiles.yml": text})
    with pytest.raises(BadConfiguration, match=r"jaffle.profiles\.yml cannot be read"):
        load(checkout, jaffle)


# Which warehouse


def test_without_a_profile_a_project_gets_its_own_database_on_the_stacks_server(checkout, jaffle) -> None:
    found = load(checkout, jaffle)
    assert (found.shared, found.database, found.output) == (
        True,
        "jaffle",
        {"type": "postgres", **projects.CONNECTION, "schema": "analytics", "threads": 4},
    )
    assert "no profile called 'jaffle'" in found.notes[0]
    assert "no profile called 'jaffle'" in refused(checkout, jaffle, WAREHOUSE="own")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "host.docker.internal", "{{ env_var('PGHOST', 'localhost') }}"])
def test_a_postgresql_on_this_machine_becomes_the_stacks_own(checkout, jaffle, host) -> None:
    output = {"type": "postgres", "host": host, "port": 5432, "user": "ann", "password": "hush", "dbname": "mine", "sslmode": "require"}
    write(jaffle, {"profiles.yml": profile({**output, "schema": "dev_ann", "threads": 8})})
    found = load(checkout, jaffle)
    assert (found.shared, found.output) == (True, {"type": "postgres", **projects.CONNECTION, "schema": "dev_ann", "threads": 8})
    assert not re.search("hush|mine|ann'", f"{found.profiles} {found.variables}")
    assert rendered(load(checkout, jaffle, WAREHOUSE="own")) == {**output, "schema": "dev_ann", "threads": 8}


def test_a_postgresql_elsewhere_is_kept(checkout, jaffle) -> None:
    write(jaffle, {"profiles.yml": profile({"type": "postgres", "host": "{{ env_var('PGHOST') }}", "schema": "x"})})
    assert not load(checkout, jaffle, {"PGHOST": "db.example.com"}).shared
    assert load(checkout, jaffle, {"PGHOST": "localhost"}).shared


def test_the_stacks_own_server_can_replace_any_warehouse(checkout, jaffle) -> None:
    write(jaffle, {"profiles.yml": profile({**SNOWFLAKE, "schema": "dev", "warehouse": "big"})})
    assert not load(checkout, jaffle).shared
    found = load(checkout, jaffle, WAREHOUSE="shared")
    assert (found.adapter, found.output["schema"], found.variables) == ("postgres", "dev", {})
    assert "warehouse" not in found.output


@pytest.mark.parametrize(
    ("name", "shop", "database"),
    [
        ("shop", True, "airflow"), ("shop", False, "shop"), ("Jaffle_Shop", False, "jaffle_shop"),
        ("airflow", False, "airflow_dbt"), ("dagster", False, "dagster_dbt"), ("Prefect", False, "prefect_dbt"),
        ("postgres", False, "postgres_dbt"), ("template1", False, "template1_dbt"),
        ('a-b c"; drop', False, "a_b_c___drop"), ("x" * 90, False, "x" * 50),
    ],
)  # fmt: skip
def test_a_project_has_a_database_name_that_nothing_else_has(name, shop, database) -> None:
    assert projects.database_of(name, shop) == database


def test_a_duckdb_file_is_kept_by_the_stack(checkout, jaffle) -> None:
    write(jaffle, {"profiles.yml": profile({"type": "duckdb", "path": "data/{{ env_var('NAME', 'x') }}.duckdb"})})
    found = load(checkout, jaffle)
    assert found.output["path"] == "{{ env_var('SWITCHYARD_WAREHOUSE_PATH') }}/x.duckdb"
    assert any("x.duckdb is kept by the stack" in note for note in found.notes)
    assert found.requirements == "dbt-duckdb"


@pytest.mark.parametrize("path", [None, ":memory:", "md:mine", "md:mine?motherduck_token=hush", "motherduck:mine"])
def test_a_duckdb_that_is_not_a_file_is_left_alone(checkout, jaffle, path) -> None:
    output = {"type": "duckdb", **({"path": path} if path else {})}
    write(jaffle, {"profiles.yml": profile(output)})
    found = load(checkout, jaffle)
    assert rendered(found) == output
    assert "hush" not in found.profiles


# Secrets, files and variables


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"password": "hush"}, id="a password"),
        pytest.param({"password": "hu\"sh': #"}, id="a password with YAML's special characters"),
        pytest.param({"token": "hush", "http_path": "/sql/1"}, id="a token"),
        pytest.param({"keyfile_json": {"private_key": "hush\nhush", "client_email": "a@b"}}, id="a key, deep inside"),
        pytest.param({"secrets": [{"type": "s3", "key_id": "hush"}]}, id="in a list"),
        pytest.param({"private_key": "hush", "private_key_passphrase": "hush2"}, id="a key and its pass phrase"),
        pytest.param({"dsn": "postgres://ann:hush@db.example.com/x"}, id="in an address"),
    ],
)
def test_a_secret_reaches_dbt_and_no_file(checkout, jaffle, more) -> None:
    write(jaffle, {"profiles.yml": profile({"type": "snowflake", **more}), ".env": "X=hush\n", "models/a.sql": "select 1"})
    found = load(checkout, jaffle)
    assert rendered(found) == {"type": "snowflake", **more}
    assert "hu" not in found.profiles
    assert all(key.startswith("DBT_ENV_SECRET_") for key, value in found.variables.items() if "hu" in value)
    base = projects.stage(configured(checkout, jaffle), found)
    staged = {path.relative_to(base).as_posix(): path.read_text() for path in base.rglob("*") if path.is_file()}
    assert {"project/models/a.sql", "profiles/profiles.yml"} <= staged.keys()
    assert not [name for name, text in staged.items() if "hush" in text]


def test_a_password_of_digits_is_a_secret_as_well(checkout, jaffle) -> None:
    write(jaffle, {"profiles.yml": profile({"type": "snowflake", "password": 8146, "access_token_expires_on": 60})})
    found = load(checkout, jaffle)
    assert "8146" not in found.profiles
    assert "8146" in found.variables.values()
    assert found.output["access_token_expires_on"] == 60


def test_another_password_needs_no_build_and_another_account_does(checkout, jaffle) -> None:
    def built(**more: str) -> str:
        write(jaffle, {"profiles.yml": profile({**SNOWFLAKE, **more})})
        return load(checkout, jaffle).dependencies_fingerprint()

    assert built() == built(password="other")
    assert built() != built(account="cd2")


def test_a_key_file_is_found_on_either_runtime_and_is_in_no_image(checkout, jaffle, tmp_path) -> None:
    key = write(jaffle, {"keys/me.p8": "hush"}) / "keys" / "me.p8"
    write(
        jaffle,
        {"profiles.yml": profile({**SNOWFLAKE, "private_key_path": str(key), "ca": str(tmp_path / "nowhere"), "path": "/" + "x" * 300})},
    )
    found = load(checkout, jaffle)
    assert found.files == {"SWITCHYARD_FILE_PRIVATE_KEY_PATH": key}
    assert rendered(found)["private_key_path"] == str(key)
    assert rendered(found)["ca"] == str(tmp_path / "nowhere")
    assert found.in_container()["SWITCHYARD_FILE_PRIVATE_KEY_PATH"] == "/opt/dbt/files/SWITCHYARD_FILE_PRIVATE_KEY_PATH"
    assert not list(projects.stage(configured(checkout, jaffle), found).rglob("me.p8"))


def test_a_variable_is_passed_on_or_reported_missing_with_the_file_that_uses_it(checkout, jaffle) -> None:
    write(
        jaffle,
        {
            "models/a.sql": "select '{{ env_var('FOUND') }}', '{{ env_var(\"MISSED\") }}', '{{ env_var('ELSE', 'x') }}'",
            "macros/deep/m.sql": "{{ env_var( 'LATER' ,'y' ) }}",
            "profiles.yml": profile({"type": "snowflake", "user": "{{ env_var('LOGIN', \"me\") }}", "role": "{{ env_var('ROLE') }}"}),
            "seeds/s.csv": "{{ env_var('OF_A_SEED') }}",
            "dbt_packages/p/m.sql": "{{ env_var('OF_A_PACKAGE') }}",
            ".venv/m.sql": "{{ env_var('OF_A_TOOL') }}",
        },
    )
    found = load(checkout, jaffle, {"FOUND": "1", "LATER": "2", "LOGIN": "ann", "UNASKED": "3", "OF_A_SEED": "4"})
    assert found.variables == {"FOUND": "1", "LATER": "2", "LOGIN": "ann"}
    assert found.missing == {"MISSED": "models/a.sql", "ROLE": "the profile"}


def test_the_shell_wins_over_the_projects_env_and_that_over_the_checkouts(checkout, jaffle) -> None:
    write(jaffle, {"models/a.sql": "{{ env_var('A') }} {{ env_var('B') }} {{ env_var('C') }}", ".env": "A=project\nB=project\n"})
    write(checkout, {".env": "A=checkout\nB=checkout\nC=checkout\n"})
    assert load(checkout, jaffle, {"A": "shell"}).variables == {"A": "shell", "B": "project", "C": "checkout"}


def test_variables_that_the_stack_sets_are_not_read_from_elsewhere(checkout, jaffle) -> None:
    asked = ("DBT_HOST", "DBT_TARGET", "DBT_PROJECT_DIR", "HOME", "SWITCHYARD_X", "DBT_PASSWORD")
    write(jaffle, {"models/a.sql": " ".join(f"{{{{ env_var('{key}') }}}}" for key in asked)})
    settings.load(checkout, {})  # writes the stack's own DBT_PASSWORD
    found = load(checkout, jaffle, dict.fromkeys(asked[:-1], "mine"))
    assert (found.variables, found.missing) == ({}, {"DBT_PASSWORD": "models/a.sql"})


def test_a_shell_reads_each_value_unchanged(checkout, jaffle) -> None:
    write(jaffle, {"models/a.sql": "{{ env_var('A') }}"})
    assert load(checkout, jaffle, {"A": "it's $HOME"}).shell() == "export A='it'\"'\"'s $HOME'\n"
    assert load(checkout, jaffle).shell()


# What cannot be run


@pytest.mark.parametrize(
    ("wanted", "version", "fits"),
    [
        (">=1.0.0,<2.0.0", "1.11.2", True), ([">=1.0.0", "<1.11"], "1.11.2", False), ("1.11.2", "1.11.2", True),
        ("=1.10.0", "1.11.2", False),
        (">1.9", "1.10.0", True), ("!=1.11.2", "1.11.2", False), (">=2.0.0", "1.11.2", False), (1.5, "1.11.2", False),
        (None, "1.11.2", True),
    ],
)  # fmt: skip
def test_the_version_that_a_project_requires(wanted, version, fits) -> None:
    assert (projects.unfit_version(wanted, version) == "") is fits


def test_all_problems_are_reported_at_once_and_env_is_unchanged(checkout, jaffle) -> None:
    write(
        jaffle,
        {
            "dbt_project.yml": "name: jaffle\nrequire-dbt-version: '>=99.0'\n",
            "profiles.yml": profile(SNOWFLAKE, "pord"),
            "packages.yml": "packages: [{local: ../nowhere}]\n",
            "orchestration.yml": "jobs:\n  a: {dbt: fly}\n  b: {}\n",
        },
    )
    loaded, _ = settings.load(checkout, {})
    before = (checkout / ".env").read_bytes()
    with pytest.raises(BadConfiguration) as caught:
        projects.use(loaded, ENVIRON, str(jaffle))
    for words in ("no target 'pord'", ">=99.0", str(jaffle.parent / "nowhere"), "orchestration.yml:2", "orchestration.yml:3"):
        assert words in caught.value.why
    assert (checkout / ".env").read_bytes() == before


@pytest.mark.parametrize("value", ["5", "[1]", "models", "{a: b}"])
def test_folders_that_are_no_list_of_texts_are_refused_as_by_dbt(checkout, jaffle, value) -> None:
    write(jaffle, {"dbt_project.yml": f"name: jaffle\nmodel-paths: {value}\n"})
    assert "model-paths in dbt_project.yml is" in refused(checkout, jaffle)


@pytest.mark.parametrize(("value", "models"), [("", 1), ("[]", 0), ("[other]", 0), ("\"{{ var('folders') }}\"", 1)])
def test_folders_that_dbt_accepts_are_accepted(checkout, jaffle, capsys, value, models) -> None:
    write(jaffle, {"dbt_project.yml": f"name: jaffle\nmodel-paths: {value}\n", "models/a.sql": ""})
    projects.use(configured(checkout, jaffle), ENVIRON, str(jaffle))
    assert f"dbt project jaffle, {models} models" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["- package: x\n", "packages: x\n", "packages: {a: b}\n", "nothing"])
def test_an_invalid_packages_file_is_left_to_dbt(checkout, jaffle, text) -> None:
    write(jaffle, {"packages.yml": text})
    assert load(checkout, jaffle).packages == []


def test_packages_that_cannot_be_read_are_left_to_dbt(checkout, jaffle) -> None:
    write(jaffle, {"packages.yml": "packages: [{local: inside, since: 2026-02-30}]\n"})
    assert load(checkout, jaffle).name == "jaffle"


def test_a_folder_without_a_project_shows_one_nearby(checkout, jaffle) -> None:
    loaded, _ = settings.load(checkout, {})
    with pytest.raises(BadConfiguration) as caught:
        projects.use(loaded, ENVIRON, str(jaffle.parent))
    assert caught.value.next == f"invoke use {jaffle}"
    with pytest.raises(BadConfiguration, match=r"There is no dbt_project\.yml"):
        projects.use(loaded, ENVIRON, "~nobody-of-this-name")


@pytest.mark.parametrize("text", ["", "- a", "profile: x", "name: [", "name: x\nsince: 2026-02-30"])
def test_an_invalid_project_file_is_reported(checkout, jaffle, text) -> None:
    write(jaffle, {"dbt_project.yml": text})
    with pytest.raises(BadConfiguration, match=r"does not name a project|cannot be read"):
        load(checkout, jaffle)


# What is used and built


def test_use_saves_the_project_and_shows_what_it_found(checkout, jaffle, capsys) -> None:
    write(
        jaffle,
        {
            "models/a.sql": "{{ env_var('MISSED') }}",
            "models/deep/b.sql": "select 1",
            "packages.yml": "packages: [{package: dbt-labs/dbt_utils, version: 1.3.0}]",
        },
    )
    loaded, _ = settings.load(checkout, {})
    lines = (checkout / ".env").read_text().splitlines()
    projects.use(loaded, ENVIRON, str(jaffle))
    output = capsys.readouterr().out
    for words in ("dbt project jaffle, 2 models", "the stack's own PostgreSQL, database jaffle", "dbt-labs/dbt_utils", "MISSED is not set"):
        assert words in output
    after = (checkout / ".env").read_text().splitlines()
    assert [(old, new) for old, new in zip(lines, after) if old != new] == [
        ("#DBT_PROJECT=dbt_project", f"DBT_PROJECT={jaffle.as_posix()}")
    ]
    assert projects.folder(settings.load(checkout, {})[0]) == jaffle


def test_use_saves_the_warehouse_too(checkout, jaffle, capsys) -> None:
    write(jaffle, {"profiles.yml": profile({"type": "postgres", "host": "{{ env_var('MY_HOST') }}", "schema": "dev"})})
    loaded, _ = settings.load(checkout, {})
    projects.use(loaded, ENVIRON, str(jaffle))
    assert "the host of its PostgreSQL, {{ env_var('MY_HOST') }}, is not set" in " ".join(capsys.readouterr().out.split())
    before = (checkout / ".env").read_text()
    projects.use(loaded, ENVIRON, str(jaffle), "own")
    assert "the warehouse is the one in the profile" in capsys.readouterr().out
    assert (checkout / ".env").read_text() == before.replace("#WAREHOUSE=auto", "WAREHOUSE=own")


def test_a_file_that_only_describes_the_project_needs_no_variable(checkout, jaffle) -> None:
    write(jaffle, {"README.md": "{{ env_var('OF_AN_EXAMPLE') }}"})
    assert load(checkout, jaffle).missing == {}


def test_a_relative_folder_is_relative_to_the_current_folder(checkout, jaffle, monkeypatch) -> None:
    loaded, _ = settings.load(checkout, {})
    monkeypatch.chdir(jaffle.parent)
    projects.use(loaded, ENVIRON, "jaffle")
    assert settings.load(checkout, {})[0]["DBT_PROJECT"] == "../jaffle"
    monkeypatch.chdir(jaffle)
    assert projects.folder(settings.load(checkout, {})[0]) == jaffle


def test_nothing_is_written_into_the_project(checkout, jaffle, monkeypatch) -> None:
    write(jaffle, {"models/a.sql": "select 1", "packages.yml": "packages: [{local: own}]", "own/dbt_project.yml": "name: own\n"})
    before = listing(jaffle)
    loaded, _ = settings.load(checkout, {})
    projects.use(loaded, ENVIRON, str(jaffle))
    loaded = settings.load(checkout, {})[0]
    found = projects.load(loaded, ENVIRON)
    projects.stage(loaded, found)
    assert found.dependencies_fingerprint() != project_files.fingerprint(jaffle)
    laid_out(jaffle, checkout, monkeypatch)
    assert listing(jaffle) == before


def test_a_package_outside_the_project_keeps_its_relative_path_in_the_build(checkout, tmp_path) -> None:
    place = write(
        tmp_path / "company" / "projects" / "jaffle",
        {"dbt_project.yml": "name: jaffle\n", "packages.yml": "packages: [{local: ../../shared}]\n", ".env": "X=hush", "models/a.sql": "1"},
    )
    write(
        tmp_path / "company" / "shared",
        {
            "dbt_project.yml": "name: shared\n",
            "macros/m.sql": "one",
            ".env": "X=hush",
            "profiles.yml": "hush",
            "target/x": "",
            "packages.yml": "packages: [{local: ../../third}]\n",
        },
    )
    write(tmp_path / "company" / "third", {"dbt_project.yml": "name: third\n"})  # relative to the project's folder, as dbt resolves it
    found = load(checkout, place)
    deps = projects.stage(configured(checkout, place), found) / "deps"
    assert {path.relative_to(deps).as_posix() for path in deps.rglob("*") if path.is_file()} == {
        ".project", "projects/jaffle/dbt_project.yml", "projects/jaffle/packages.yml",
        "shared/dbt_project.yml", "shared/macros/m.sql", "shared/packages.yml", "third/dbt_project.yml",
    }  # fmt: skip
    assert (deps / ".project").read_text().strip() == "projects/jaffle"
    before = found.dependencies_fingerprint()
    write(tmp_path / "company" / "shared", {"macros/m.sql": "two"})
    assert found.dependencies_fingerprint() != before


def test_a_build_has_only_the_current_files_of_the_project(checkout, jaffle) -> None:
    write(jaffle, {"models/a.sql": "1", ".git/x": "", "target/x": "", "mine.duckdb": "", "venv/pyvenv.cfg": "", "a.sql~": ""})
    loaded = configured(checkout, jaffle)
    projects.stage(loaded, load(checkout, jaffle))
    (jaffle / "models" / "a.sql").rename(jaffle / "models" / "b.sql")
    base = projects.stage(loaded, load(checkout, jaffle)) / "project"
    assert {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()} == {"dbt_project.yml", "models/b.sql"}


def test_the_copy_in_an_image_has_the_fingerprint_of_the_project(checkout, jaffle) -> None:
    texts = {
        "models/profiles.yml": "version: 2",
        "profiles.yml": profile(SNOWFLAKE),
        "x.duckdb": "x",
        "venv/pyvenv.cfg": "",
        "venv/a.py": "",
    }
    write(jaffle, texts)
    if os.name != "nt":  # there, an ordinary account cannot create links
        (jaffle / "models" / "broken.sql").symlink_to("nowhere")
        for name in ("back", "again"):
            (jaffle / "models" / name).symlink_to("..")
    base = projects.stage(configured(checkout, jaffle), load(checkout, jaffle))
    before = project_files.fingerprint(jaffle)
    assert project_files.fingerprint(base / "project") == before
    write(jaffle, {"models/profiles.yml": "version: 3"})
    assert project_files.fingerprint(jaffle) != before


def test_requirements_are_those_that_the_lock_lacks(checkout, jaffle) -> None:
    text = """\
# of pip-compile
dbt-core==1.7.0
DBT-snowflake>=1
pandas==2.2.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via me
Py_YAML==6.0 \\
    --hash=sha256:cc
numpy  # mine
"""
    write(jaffle, {"requirements.txt": text, "profiles.yml": profile(SNOWFLAKE)})
    found = load(checkout, jaffle).requirements
    assert found.splitlines() == ["dbt-snowflake", "pandas==2.2.0", "Py_YAML==6.0", "numpy"]
    assert python_packages.beyond(found, "py-yaml==6.0.3 \\\n    --hash=sha256:dd\nnumpy-financial==1\n").split() == [
        "dbt-snowflake",
        "pandas==2.2.0",
        "numpy",
    ]


def test_requirements_include_those_of_included_files(checkout, jaffle) -> None:
    write(jaffle, {
        "requirements.txt": "-r more/base.txt\n--requirement=nowhere.txt\ndbt-snowflake[secure-local-storage]==1.9\n",
        "more/base.txt": "numpy\n-r ../requirements.txt\n-c pins.txt\n-c https://x/pins.txt\n--requirement https://x/base.txt\n",
        "profiles.yml": profile(SNOWFLAKE),
    })  # fmt: skip
    adapter, numpy, constraints, digest, *addresses = load(checkout, jaffle).requirements.splitlines()
    assert (adapter, numpy) == ("dbt-snowflake[secure-local-storage]", "numpy")
    assert constraints == f"-c {jaffle / 'more' / 'pins.txt'}"
    assert addresses == ["-c https://x/pins.txt", "--requirement https://x/base.txt"]
    write(jaffle, {"more/pins.txt": "-r inner.txt\n", "more/inner.txt": "numpy==2.0\n"})
    others = {digest, load(checkout, jaffle).requirements.splitlines()[3]}
    write(jaffle, {"more/inner.txt": "numpy==2.1\n"})
    others.add(load(checkout, jaffle).requirements.splitlines()[3])
    assert len(others) == 3
    assert all(other.startswith("# ") for other in others)


@pytest.mark.parametrize(
    ("package", "git", "ssh"),
    [
        ("{package: a/b, version: 1.0.0}", False, False),
        ("{git: 'https://example.com/a.git'}", True, False),
        ("{git: 'git@example.com:a.git'}", True, True),
        ("{git: 'ssh://git@example.com/a.git'}", True, True),
    ],
)
def test_a_build_has_git_and_ssh_if_a_package_needs_them(checkout, jaffle, package, git, ssh) -> None:
    write(jaffle, {"dependencies.yml": f"packages: [{package}]\n"})
    found = load(checkout, jaffle)
    assert (found.needs_git, found.needs_ssh) == (git, ssh)


# A line of .env


ENV = "# mine\nDBT_PROJECT=dbt_project\n\nDAGSTER_PORT=3999  # a comment\nMY_OWN='1'\n"


def test_one_line_changes_and_the_others_stay(checkout) -> None:
    write(checkout, {".env": ENV})
    settings.assign(checkout, "DBT_PROJECT", "../jaffle")
    assert (checkout / ".env").read_text() == ENV.replace("=dbt_project", "=../jaffle")
    settings.assign(checkout, "WAREHOUSE", "own")
    assert (checkout / ".env").read_text() == ENV.replace("=dbt_project", "=../jaffle") + "WAREHOUSE=own\n"


@pytest.mark.parametrize("folder", ["/my files/x", "/it's/here", '/a "b" c', "/pa$$ #1/${x}", "/a\\'b\\\\", "/é漢", ""])
def test_a_folder_is_read_back_unchanged(checkout, folder) -> None:
    write(checkout, {".env": ENV})
    settings.assign(checkout, "DBT_PROJECT", folder)
    assert dotenv_values(checkout / ".env", interpolate=False)["DBT_PROJECT"] == folder
    assert settings.load(checkout, {})[0]["DBT_PROJECT"] == (folder or "dbt_project")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30))
def test_any_folder_is_read_back_unchanged(tmp_path_factory, folder) -> None:
    checkout = write(tmp_path_factory.mktemp("env"), {".env": ENV})
    settings.assign(checkout, "DBT_PROJECT", folder)
    assert dotenv_values(checkout / ".env", interpolate=False)["DBT_PROJECT"] == folder


@pytest.mark.parametrize("folder", ["/a\nb", "/a\udce9"])
def test_a_folder_that_cannot_be_written_on_a_line_is_refused(checkout, folder) -> None:
    write(checkout, {".env": ENV})
    with pytest.raises(BadConfiguration, match="DBT_PROJECT"):
        settings.assign(checkout, "DBT_PROJECT", folder)
    assert (checkout / ".env").read_text() == ENV


# What dbt parsed


def test_a_test_that_never_runs_is_left_out_of_the_manifest(tmp_path) -> None:
    file = tmp_path / "manifest.json"
    on, off = {"config": {"enabled": True}}, {"config": {"enabled": False}}
    content = {
        "nodes": {"a": on, "b": off, "c": {}},
        "parent_map": {"a": [], "b": ["a"]},
        "child_map": {"a": ["b", "c"], "b": []},
        "more": 1,
    }
    file.write_text(json.dumps(content))
    project_files.leave_out_disabled(file)
    assert json.loads(file.read_text()) == {
        "nodes": {"a": on, "c": {}}, "parent_map": {"a": []}, "child_map": {"a": ["c"]}, "more": 1,
    }  # fmt: skip
    file.write_text(json.dumps({"nodes": {"b": off}}))  # as dbt 2 writes it
    project_files.leave_out_disabled(file)
    assert json.loads(file.read_text()) == {"nodes": {}}
    file.write_text('{"nodes":  {}}')
    project_files.leave_out_disabled(file)
    assert file.read_text() == '{"nodes":  {}}'


TRACE = '\n21:08:18  Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n'


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Compilation Error\n  no model called x", "Compilation Error\n  no model called x"),
        (f"21:08:18  Encountered an error:\n'name'{TRACE}KeyError: 'name'", "KeyError: 'name'"),
        (f"Encountered an error:\nInternal Error\n  what{TRACE}  of it", "Encountered an error:\nInternal Error\n  what\nof it"),
        (f"{TRACE.strip()}\nModuleNotFoundError: No module named 'x'", "ModuleNotFoundError: No module named 'x'"),
    ],
)  # fmt: skip
def test_the_message_has_only_the_last_line_of_a_traceback(output, reason) -> None:
    assert project_files.reason(output) == reason


# The folder that dbt works in


def laid_out(source: Path, tmp_path: Path, monkeypatch) -> Path:
    """Lay out the project, with a package in the packages' folder; returns the folder that dbt works in."""
    write(tmp_path / "packages", {"utils/dbt_project.yml": "name: utils\n"})
    monkeypatch.setenv("SWITCHYARD_SOURCE_PATH", str(source))
    monkeypatch.setenv("DBT_PROJECT_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("DBT_PACKAGES_PATH", str(tmp_path / "packages"))
    project_files.lay_out()
    return tmp_path / "work"


def held(work: Path) -> set[str]:
    return {Path(folder, name).relative_to(work).as_posix() for folder, _, names in os.walk(work, followlinks=True) for name in names}


def test_dbts_folder_has_the_files_of_the_project_and_its_packages(jaffle, tmp_path, monkeypatch) -> None:
    write(jaffle, {"models/a.sql": "1", "old/x.sql": "", "target/x": "", "dbt_packages/stale/x": "", "logs/x": ""})
    work = laid_out(jaffle, tmp_path, monkeypatch)
    package = "dbt_packages/utils/dbt_project.yml"
    assert held(work) == {"dbt_project.yml", "models/a.sql", "old/x.sql", package}
    shutil.rmtree(jaffle / "old")
    write(jaffle, {"models/a.sql": "2", "macros/new.sql": ""})
    work = laid_out(jaffle, tmp_path, monkeypatch)
    assert held(work) == {"dbt_project.yml", "models/a.sql", "macros/new.sql", package}
    assert (work / "models" / "a.sql").read_text() == "2"


def test_hidden_files_are_not_in_dbts_folder(jaffle, tmp_path, monkeypatch) -> None:
    write(jaffle, {".env": "X=hush", ".git/config": "", "venv/pyvenv.cfg": "", "models/a.sql": "1", ".dbtignore": ""})
    assert held(laid_out(jaffle, tmp_path, monkeypatch)) == {
        "dbt_project.yml", "models/a.sql", ".dbtignore", "dbt_packages/utils/dbt_project.yml"
    }  # fmt: skip


def test_packages_can_be_anywhere_in_the_project_and_move(jaffle, tmp_path, monkeypatch) -> None:
    write(jaffle, {"dbt_project.yml": "name: jaffle\npackages-install-path: lib/dbt/packages\n"})
    write(jaffle, {"lib/mine.sql": "1", "lib/dbt/other.sql": "2", "lib/dbt/packages/stale/x": ""})
    work = laid_out(jaffle, tmp_path, monkeypatch)
    package = "utils/dbt_project.yml"
    assert held(work) == {"dbt_project.yml", "lib/mine.sql", "lib/dbt/other.sql", f"lib/dbt/packages/{package}"}
    write(jaffle, {"dbt_project.yml": "name: jaffle\n"})
    shutil.rmtree(jaffle / "lib" / "dbt" / "packages")
    work = laid_out(jaffle, tmp_path, monkeypatch)
    assert held(work) == {"dbt_project.yml", "lib/mine.sql", "lib/dbt/other.sql", f"dbt_packages/{package}"}
    assert (jaffle / "lib" / "mine.sql").read_text() == "1"


def test_packages_whose_place_is_a_variable_are_not_in_dbts_folder(jaffle, tmp_path, monkeypatch) -> None:
    write(jaffle, {"dbt_project.yml": "name: jaffle\npackages-install-path: \"{{ env_var('DBT_PACKAGES_PATH') }}\"\n"})
    assert held(laid_out(jaffle, tmp_path, monkeypatch)) == {"dbt_project.yml"}


def test_a_file_that_dbt_has_written_is_replaced_by_the_projects_own(jaffle, tmp_path, monkeypatch) -> None:
    work = laid_out(jaffle, tmp_path, monkeypatch)
    write(work, {"notes.md": "somebody's"})
    write(jaffle, {"notes.md": "mine"})
    laid_out(jaffle, tmp_path, monkeypatch)
    assert (work / "notes.md").read_text() == "mine"


def test_the_shop_ignores_a_users_settings(root, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    loaded = settings.defaults(root, {})
    shop = projects.load(replace(loaded, values={**loaded.values, "DBT_TARGET": "prod", "WAREHOUSE": "own"}), {"DBT_THREADS": "9"})
    assert (shop.shop, shop.shared, shop.target, shop.database, shop.variables) == (True, True, "dev", "airflow", {})


def test_dbt_cannot_write_a_lock_of_packages_into_the_project(jaffle, tmp_path, monkeypatch) -> None:
    write(jaffle, {"package-lock.yml": "mine"})
    assert "package-lock.yml" not in held(laid_out(jaffle, tmp_path, monkeypatch))


# Messages about it


@pytest.mark.parametrize("host", ["/var/run/postgresql", "localhost", ""])
def test_a_postgresql_on_this_machine_is_replaced_by_the_stacks_own(checkout, jaffle, host) -> None:
    write(jaffle, {"profiles.yml": profile({"type": "postgres", "host": host, "schema": "s"})})
    assert load(checkout, jaffle).shared


def test_packages_at_an_absolute_path_are_refused(checkout, jaffle, tmp_path) -> None:
    write(jaffle, {"dbt_project.yml": f"name: jaffle\npackages-install-path: {(tmp_path / 'all').as_posix()}\n"})
    assert "it must be a folder inside the project" in refused(checkout, jaffle)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["models/münchen.sql", "models/fine.sql"], ""),
        (["models/grün.sql", "seeds/grün.csv", "models/gran.sql"], "grün"),
        (["models/grün.sql", "models/grön.sql"], "grön, grün"),
        (["models/a.b.sql", "models/a_b.sql"], "a.b, a_b"),
        (["models/a.b.sql", "seeds/c-d.csv", "models/deep/x_1.py"], ""),
    ],
)
def test_names_that_dagster_cannot_show_are_reported_beforehand(checkout, jaffle, capsys, names, shown) -> None:
    write(jaffle, dict.fromkeys(names, ""))
    projects.use(configured(checkout, jaffle), ENVIRON, str(jaffle))
    output = " ".join(capsys.readouterr().out.split())
    assert (f"because of {shown}:" in output) if shown else ("Dagster" not in output)


def test_files_that_no_run_would_have_are_reported_beforehand(checkout, jaffle, capsys) -> None:
    write(jaffle, {"dbt_project.yml": "name: jaffle\nmodel-paths: [models, ../shared/models]\n", "models/a.sql": ""})
    write(jaffle.parent, {"elsewhere/m.sql": ""})
    projects.use(configured(checkout, jaffle), ENVIRON, str(jaffle))
    output = capsys.readouterr().out
    assert "model-paths: ../shared/models is not in the project's folder" in output
    if os.name != "nt":  # there, an ordinary account cannot create links
        (jaffle / "macros").symlink_to(jaffle.parent / "elsewhere")
        (jaffle / "near.sql").symlink_to(jaffle / "models" / "a.sql")
        projects.use(configured(checkout, jaffle), ENVIRON, str(jaffle))
        output = capsys.readouterr().out
        assert "macros links outside the project" in output
        assert "near.sql" not in output


def test_a_token_in_the_address_of_a_package_is_not_shown(checkout, jaffle, capsys) -> None:
    write(jaffle, {"packages.yml": "packages: [{git: 'https://me:hush@git.example.com/x.git', revision: main}]"})
    projects.use(configured(checkout, jaffle), ENVIRON, str(jaffle))
    output = capsys.readouterr().out
    assert "https://git.example.com/x.git is downloaded" in output
    assert "hush" not in output


def test_the_needs_of_a_local_package_are_also_the_projects(checkout, jaffle) -> None:
    write(jaffle, {"packages.yml": "packages: [{local: ../shared}]", ".env": "ROLE=reader\n"})
    files_of_it = {"dbt_project.yml": "name: shared\n", "macros/m.sql": "{{ env_var('ROLE') }} {{ env_var('OTHER') }}"}
    write(jaffle.parent / "shared", {**files_of_it, "packages.yml": "packages: [{git: 'git@git.example.com:x.git', revision: main}]"})
    found = load(checkout, jaffle)
    assert found.variables["ROLE"] == "reader"
    assert found.missing == {"OTHER": "macros/m.sql"}
    assert (found.needs_git, found.needs_ssh) == (True, True)


@pytest.mark.parametrize("name", ["requirements.txt", ".env"])
def test_a_file_that_is_not_in_utf_8_is_reported(checkout, jaffle, name) -> None:
    """As PowerShell 5 writes it."""
    (jaffle / name).write_bytes("X=1\n".encode("utf-16"))
    with pytest.raises(BadConfiguration, match=re.escape(str(jaffle / name))):
        _ = load(checkout, jaffle).requirements
    (jaffle / name).write_bytes("\ufeffpandas==2.0\n".encode() if name == "requirements.txt" else "\ufeffROLE=reader\n".encode())
    write(jaffle, {"models/a.sql": "{{ env_var('ROLE', '') }}"})
    found = load(checkout, jaffle)
    assert "pandas==2.0" in found.requirements.splitlines() or found.variables == {"ROLE": "reader"}


def test_a_dry_use_changes_nothing(checkout, jaffle) -> None:
    loaded = configured(checkout, jaffle)
    before = (checkout / ".env").read_text()
    projects.use(loaded, ENVIRON, str(jaffle), dry=True)
    assert (checkout / ".env").read_text() == before


def test_the_names_of_the_stacks_connection_are_free_on_another_warehouse(checkout, jaffle) -> None:
    call = "{{ env_var('DBT_USER') }}"
    write(jaffle, {"profiles.yml": profile({"type": "snowflake", "account": "a", "user": call}), ".env": "DBT_USER=ann\n"})
    assert load(checkout, jaffle).variables["DBT_USER"] == "ann"
    assert "DBT_USER" not in load(checkout, jaffle, WAREHOUSE="shared").variables
    (jaffle / ".env").unlink()
    assert "DBT_USER" in load(checkout, jaffle).missing
