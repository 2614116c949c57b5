"""What `invoke upgrade-test` determines before and after the tests."""

import re
import subprocess

from switchyard import upgrades

from ..stacks import ROOT


def test_only_changed_versions_are_moves() -> None:
    before = {"docker/dagster": {"dagster": "1.0", "pip": "1", "gone": "1"}, "docker/prefect": {"prefect": "3.0"}, ".": {"invoke": "3"}}
    after = {"docker/dagster": {"dagster": "1.1", "pip": "1", "new": "1"}, "docker/prefect": {"prefect": "3.0"}, ".": {"invoke": "3"}}
    assert upgrades.moves(before, after) == {"docker/dagster": {"dagster": ("1.0", "1.1")}}


def test_a_version_less_is_no_move() -> None:
    before = {"docker/prefect": {"griffe": "2.3.0, 2.4.1", "starlette": "1.7, 1.8"}}
    after = {"docker/prefect": {"griffe": "2.4.1", "starlette": "1.8, 1.9"}}
    assert upgrades.moves(before, after) == {"docker/prefect": {"starlette": ("1.7, 1.8", "1.8, 1.9")}}


def test_an_upgrade_that_is_not_committed_is_compared_with_the_commit(tmp_path) -> None:
    lock = tmp_path / "docker" / "one" / "requirements.txt"
    lock.parent.mkdir(parents=True)
    lock.with_suffix(".in").touch()
    lock.write_text("one==1.0\n")
    assert upgrades.versions(tmp_path, upgrades.committed) == {"docker/one/requirements.txt": {"one": "1.0"}}  # without git
    for words in (["init", "--quiet"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    lock.write_text("one==2.0\n")
    assert upgrades.versions(tmp_path, upgrades.committed) == {"docker/one/requirements.txt": {"one": "1.0"}}
    assert upgrades.versions(tmp_path) == {"docker/one/requirements.txt": {"one": "2.0"}}


def test_the_versions_are_those_of_the_locks() -> None:
    found = upgrades.versions(ROOT)
    lock = (ROOT / "docker" / "prefect" / "requirements.txt").read_text(encoding="utf-8")
    assert found["docker/prefect/requirements.txt"]["prefect"] == re.search(r"^prefect==(\S+)", lock, re.M)[1]
    assert {"docker/airflow/requirements.txt", "compare/requirements.txt", "requirements.txt"} <= found.keys()


def test_every_scenario_is_a_file_of_tests() -> None:
    assert [path for path in upgrades.SCENARIOS if not (ROOT / path).is_file()] == []


def test_tests_of_no_particular_orchestrator_run_with_each() -> None:
    assert upgrades.selection(["dagster"], ["airflow", "dagster", "prefect"]) == ["-k", "dagster or not (airflow or prefect)"]
    assert upgrades.selection(["dagster", "airflow"], ["airflow", "dagster"]) == []


def test_a_deprecation_is_shown_once_from_the_name_of_its_warning() -> None:
    log = [
        "code  | 10:01 /opt/x.py:3: DeprecationWarning: old() goes in 2.0",
        "code  | 10:02 /opt/x.py:9: DeprecationWarning: old() goes in 2.0",
        "api   | RemovedInAirflow4Warning: use new()",
        "api   | INFO started",
    ]
    assert upgrades.deprecations(log) == ["DeprecationWarning: old() goes in 2.0", "RemovedInAirflow4Warning: use new()"]
