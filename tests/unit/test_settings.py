"""`.env`: created with secrets, completed, validated, and never damaged."""

import base64
import os
import re
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from switchyard import settings
from switchyard.errors import BadConfiguration


@pytest.fixture
def checkout(tmp_path, root):
    """A folder with nothing but the example."""
    (tmp_path / ".env.example").write_bytes((root / ".env.example").read_bytes())
    return tmp_path


def test_first_use_writes_secrets_that_only_the_owner_can_read(checkout) -> None:
    loaded, made = settings.load(checkout, {})
    assert "POSTGRES_PASSWORD" in made
    assert "AIRFLOW_FERNET_KEY" in made
    assert "<" not in "".join(loaded.values.values())
    assert len({loaded[key] for key in made}) == len(made)
    assert len(base64.urlsafe_b64decode(loaded["AIRFLOW_FERNET_KEY"])) == 32
    assert len(loaded["AIRFLOW_JWT_SECRET"]) >= 64
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat(checkout / ".env").st_mode) == 0o600
        (checkout / ".env").chmod(0o644)
        settings.load(checkout, {}, write=False)
        assert stat.S_IMODE(os.stat(checkout / ".env").st_mode) == 0o644
        settings.load(checkout, {})
        assert stat.S_IMODE(os.stat(checkout / ".env").st_mode) == 0o600


def test_a_changed_default_reaches_an_existing_env_file(checkout) -> None:
    settings.load(checkout, {})
    secrets = {key for key, value in dotenv_values(checkout / ".env.example").items() if value.startswith("<")}
    assert dotenv_values(checkout / ".env").keys() == secrets
    settings.assign(checkout, "AIRFLOW_PORT", "8099")
    example = (checkout / ".env.example").read_text()
    assert len((checkout / ".env").read_text().splitlines()) == len(example.splitlines())  # in its place, with its comment
    (checkout / ".env.example").write_text(re.sub("(?m)^AIRFLOW_(IMAGE|PORT)=.*", r"AIRFLOW_\1=8077", example))
    found, _ = settings.load(checkout, {})
    assert (found["AIRFLOW_IMAGE"], found["AIRFLOW_PORT"]) == ("8077", "8099")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows inherits permissions from the folder")
def test_the_file_for_compose_is_made_private(checkout) -> None:
    (checkout / "compose").mkdir()
    loaded, _ = settings.load(checkout, {})
    for _ in range(2):
        loaded.write_for_compose()
        assert stat.S_IMODE(os.stat(checkout / "compose" / ".env").st_mode) == 0o600
        (checkout / "compose" / ".env").chmod(0o644)


def test_many_first_uses_at_once_make_the_secrets_once(checkout) -> None:
    with ThreadPoolExecutor(16) as pool:
        loaded = [found for found, _ in pool.map(lambda _: settings.load(checkout, {}), range(64))]
    assert len({found["POSTGRES_PASSWORD"] for found in loaded}) == 1
    assert [path.name for path in checkout.iterdir() if path.name.startswith(".env.")] == [".env.example"]


def test_a_second_use_changes_nothing(checkout) -> None:
    first, _ = settings.load(checkout, {})
    before = (checkout / ".env").read_bytes()
    second, made = settings.load(checkout, {})
    assert (made, first.values, (checkout / ".env").read_bytes()) == ([], second.values, before)


def test_an_old_env_keeps_its_lines_and_gets_the_secrets_it_lacks(checkout) -> None:
    (checkout / ".env").write_text("# mine\nDAGSTER_PORT=3999\nDBT_PASSWORD=kept\nMY_OWN=1\n")
    loaded, made = settings.load(checkout, {})
    text = (checkout / ".env").read_text()
    assert text.startswith("# mine\nDAGSTER_PORT=3999\nDBT_PASSWORD=kept\nMY_OWN=1\n")
    assert "DBT_PASSWORD" not in made
    assert (loaded["DBT_PASSWORD"], loaded.port("DAGSTER_PORT"), loaded.port("PREFECT_PORT")) == ("kept", 3999, 4200)


def test_the_shell_wins_over_the_file(checkout) -> None:
    loaded, _ = settings.load(checkout, {"DAGSTER_PORT": "3456", "COMPOSE_PROJECT_NAME": "mine"})
    assert (loaded.port("DAGSTER_PORT"), loaded.compose_name) == (3456, "mine")


def test_postgres_divides_the_memory_that_it_is_given(checkout) -> None:
    given, _ = settings.load(checkout, {"POSTGRES_MEMORY": "2048"})
    assert (given["POSTGRES_SHARED_BUFFERS"], given["POSTGRES_WORK_MEM"]) == ("512MB", "32MB")
    default, _ = settings.load(checkout, {})
    assert 1024 <= int(default["POSTGRES_MEMORY"]) <= max(1024, psutil.virtual_memory().total // 4 >> 20)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        pytest.param("DAGSTER_PORT=eighty", "DAGSTER_PORT", id="a port that is a word"),
        pytest.param("DAGSTER_PORT=70000", "DAGSTER_PORT", id="a port out of range"),
        pytest.param("DAGSTER_PORT=4200", "PREFECT_PORT", id="two services on one port"),
        pytest.param("RETENTION_DAYS=0", "RETENTION_DAYS", id="nothing is kept"),
        pytest.param("WORKERS=two", "WORKERS", id="a number of workers in words"),
        pytest.param("LOCK_TIMEOUT=-1", "LOCK_TIMEOUT", id="a negative wait"),
        pytest.param("SCHEDULES_ENABLED=maybe", "SCHEDULES_ENABLED", id="neither true nor false"),
        pytest.param("DAGSTER_TABLE_METADATA=1", "DAGSTER_TABLE_METADATA", id="neither true nor false, of a product"),
        pytest.param("INTEGRATION=fat", "INTEGRATION", id="no such integration"),
        pytest.param("POSTGRES_MEMORY=2GB", "POSTGRES_MEMORY", id="an amount with a unit"),
        pytest.param("this is not an assignment", "line 1", id="a line without ="),
        pytest.param("\n# mine\n\nthis is none", "line 4", id="a line without =, after others"),
        pytest.param("DBT_PASSWORD='open", "line 1", id="a quote that is not closed"),
        pytest.param('DBT_PASSWORD="two\nlines"', "line 1", id="a value over two lines"),
        pytest.param("DBT_PASSWORD=pa$word", "single quotes", id="a $ that Compose would take for a variable"),
        pytest.param("DAGSTER_PROT=3001", "did you mean DAGSTER_PORT", id="a misspelt key"),
        pytest.param("dagster_port=3001", "did you mean DAGSTER_PORT", id="a key in small letters"),
        pytest.param("RUNTIME=auto\nDAGSTER_PORT=1\nRUNTIME=docker", "lines 1 and 3", id="a key twice"),
        pytest.param("AIRFLOW_DB_PASSWORD=p@ss", "connection URL", id="a password that would break a URL"),
        pytest.param("COMPOSE_PROJECT_NAME=My Stack", "COMPOSE_PROJECT_NAME", id="no name for a Compose project"),
        pytest.param('DBT_PASSWORD="a\\nb"', "DBT_PASSWORD", id="a line end in a password"),
    ],
)
def test_a_bad_value_is_reported(checkout, line, named) -> None:
    (checkout / ".env").write_text(line + "\n")
    with pytest.raises(BadConfiguration, match=named):
        settings.load(checkout, {})


def test_a_password_of_a_database_without_placeholder_or_value_is_reported(checkout) -> None:
    with (checkout / ".env.example").open("a") as file:
        file.write("LUIGI_DB_PASSWORD=\n")
    with pytest.raises(BadConfiguration, match="LUIGI_DB_PASSWORD has no value"):
        settings.load(checkout, {})


@pytest.mark.parametrize("product", ["AIRFLOW|INTEGRATION", "DAGSTER", "PREFECT"])
def test_the_settings_of_a_product_may_be_missing(checkout, product) -> None:
    path = checkout / ".env.example"
    path.write_text(re.sub(rf"(?m)^({product}).*\n", "", path.read_text()))
    assert not any(re.match(product, key) for key in settings.load(checkout, {})[0].values)


def test_the_message_about_a_wrong_secret_does_not_show_it(checkout) -> None:
    (checkout / ".env").write_text("AIRFLOW_DB_PASSWORD=hush@hush\n")
    with pytest.raises(BadConfiguration) as error:
        settings.load(checkout, {})
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("DBT_PASSWORD=two words", "two words"),
        ("DBT_PASSWORD='pa$$ #1 ${x}'", "pa$$ #1 ${x}"),
        ('DBT_PASSWORD="a # b\'c"', "a # b'c"),
        ("DBT_PASSWORD=a#b # a comment", "a#b"),
        ("\ufeffDBT_PASSWORD=after a BOM", "after a BOM"),
        ("RUNTIME=auto\r\nDBT_PASSWORD=of Windows\r", "of Windows"),
        ("PREFECT_HOST=a key of mine\nexport DBT_PASSWORD=x", "x"),
    ],
)
def test_unusual_lines_are_read_correctly(checkout, line, value) -> None:
    (checkout / ".env").write_bytes(f"{line}\n".encode())
    assert settings.load(checkout, {})[0]["DBT_PASSWORD"] == value
    assert settings.load(checkout, {})[0]["DBT_PASSWORD"] == value  # from the completed file


@pytest.mark.parametrize("empty", ["", '""', "''", " # mine", "<password>", "'<password>'", "<password> # mine"])
def test_an_empty_secret_is_generated_and_a_placeholder_is_never_a_password(checkout, empty) -> None:
    (checkout / ".env").write_text(f"DBT_PASSWORD={empty}\nSTACK_PG_BIN=\n")
    loaded, made = settings.load(checkout, {})
    assert "DBT_PASSWORD" in made
    assert re.fullmatch(r"[\w-]{24}", loaded["DBT_PASSWORD"])
    assert loaded["STACK_PG_BIN"] == ""
    with pytest.raises(BadConfiguration, match="DBT_PASSWORD is <password>"):
        settings.load(checkout, {"DBT_PASSWORD": "<password>"})


@pytest.mark.parametrize("content", [b"DBT_PASSWORD=\xff\n", None], ids=["not UTF-8", "a folder"])
def test_an_env_that_is_not_a_text_file_is_reported(checkout, content) -> None:
    path = checkout / ".env"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(BadConfiguration, match=r"\.env"):
        settings.load(checkout, {})


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_an_env_that_is_a_link_stays_one_and_a_broken_link_is_reported(checkout, tmp_path_factory) -> None:
    kept = tmp_path_factory.mktemp("elsewhere") / "kept"
    (checkout / ".env").symlink_to(kept)
    with pytest.raises(BadConfiguration, match=f"links to {kept}, which is not there"):
        settings.load(checkout, {})
    kept.touch()
    settings.load(checkout, {})
    settings.assign(checkout, "DAGSTER_PORT", "3999")
    assert (checkout / ".env").is_symlink()
    assert dotenv_values(kept)["DAGSTER_PORT"] == "3999"
    assert settings.load(checkout, {})[1] == []


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_completing_never_changes_what_a_user_wrote(comment) -> None:
    text = f"# {comment}\nPORT=1\n"
    completed, made = settings.complete(text, "SECRET=<password>\nPORT=2\n")
    assert completed.startswith(text)
    assert made == ["SECRET"]


def test_a_generated_secret_is_read_back_unchanged(tmp_path) -> None:
    completed, _ = settings.complete("A=<password>\nB=<key>\nC=<long-key>\n", "")
    (tmp_path / "f").write_text(completed)
    read = dotenv_values(tmp_path / "f")
    assert completed == "".join(f"{key}={value}\n" for key, value in read.items())


def test_without_an_env_file_only_the_shells_valid_values_count(checkout) -> None:
    found = settings.defaults(checkout, {"POSTGRES_PORT": "1234", "COMPOSE_PROJECT_NAME": "mine"})
    assert (found.port("POSTGRES_PORT"), found.compose_name) == (1234, "mine")
    assert settings.defaults(checkout, {"POSTGRES_PORT": "x"}).port("POSTGRES_PORT") == 15432
