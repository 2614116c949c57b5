"""`.env`: made with secrets, completed, validated, and never damaged."""

import base64
import os
import stat
import sys

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from stack import settings
from stack.errors import BadConfiguration


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
    assert (loaded.port("DAGSTER_PORT"), loaded.project) == (3456, "mine")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        pytest.param("DAGSTER_PORT=eighty", "DAGSTER_PORT", id="a port that is a word"),
        pytest.param("DAGSTER_PORT=70000", "DAGSTER_PORT", id="a port out of range"),
        pytest.param("DAGSTER_PORT=4200", "PREFECT_PORT", id="two services on one port"),
        pytest.param("SCHEDULES_ENABLED=maybe", "SCHEDULES_ENABLED", id="neither true nor false"),
        pytest.param("this is not an assignment", "line 1", id="a line without ="),
    ],
)
def test_a_bad_value_is_named(checkout, line, named) -> None:
    (checkout / ".env").write_text(line + "\n")
    with pytest.raises(BadConfiguration, match=named):
        settings.load(checkout, {})


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_completing_never_changes_what_a_user_wrote(comment) -> None:
    text = f"# {comment}\nPORT=1\n"
    completed, made = settings.complete(text, "SECRET=<password>\nPORT=2\n")
    assert completed.startswith(text)
    assert made == ["SECRET"]


def test_a_made_secret_reads_back_as_it_was_made(tmp_path) -> None:
    completed, _ = settings.complete("A=<password>\nB=<key>\nC=<long-key>\n", "")
    (tmp_path / "f").write_text(completed)
    read = dotenv_values(tmp_path / "f")
    assert completed == "".join(f"{key}={value}\n" for key, value in read.items())
