"""A project's jobs: the content of its ``orchestration.yml``, and every mistake in it with its line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from rundbt import jobs
from rundbt.jobs import Job, JobsError, Options


def read(folder: Path, text: str) -> dict[str, Job]:
    (folder / jobs.FILE).write_text(text, encoding="utf-8")
    return jobs.read(folder)


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(jobs.JobsError) as caught:
        read(folder, text)
    return str(caught.value).splitlines()


def test_without_a_file_there_are_four_default_jobs(tmp_path) -> None:
    assert jobs.read(tmp_path) is jobs.DEFAULT
    assert list(jobs.DEFAULT) == ["daily", "smoke", "freshness", "full_refresh"]
    assert {name: job.whole for name, job in jobs.DEFAULT.items()} == {
        "daily": True, "smoke": False, "freshness": False, "full_refresh": True,
    }  # fmt: skip


def test_a_job_has_the_values_of_its_entry(tmp_path) -> None:
    text = """\
jobs:
  hourly:
    description: The fast ones.
    dbt: dbt build --select "tag:fast orders+" --exclude slow
    schedule: "0 * * * *"
    timezone: Europe/Zurich
  by_hand: {dbt: run}
"""
    hourly, by_hand = read(tmp_path, text).values()
    assert hourly == Job(
        "hourly", ("build", "--select", "tag:fast orders+", "--exclude", "slow"), "0 * * * *", "The fast ones.", "Europe/Zurich"
    )
    assert by_hand == Job("by_hand", ("run",), None, "")
    assert by_hand.timezone == "UTC"


def test_the_jobs_are_in_the_files_order(tmp_path) -> None:
    assert list(read(tmp_path, "jobs: {z: {dbt: run}, a: {dbt: test}, m: {dbt: seed}}")) == ["z", "a", "m"]


def test_several_commands_run_one_after_the_other_each_with_the_variables(tmp_path) -> None:
    text = "jobs: {a: {dbt: [seed, dbt source freshness --select x, build --full-refresh], vars: {day: 2026-01-31, deep: {n: 1}}}}"
    job = read(tmp_path, text)["a"]
    given = ("--vars", "{day: '2026-01-31', deep: {n: 1}}")
    assert job.before == (("seed", *given), ("source", "freshness", *given, "--select", "x"))
    assert job.dbt_args == ("build", *given, "--full-refresh")
    assert job.commands == (*job.before, job.dbt_args)
    assert (job.whole, job.full_refresh) == (True, True)


@pytest.mark.parametrize(
    ("command", "whole", "full_refresh"),
    [
        ("build", True, False), ("build --full-refresh", True, True), ("build -f", True, True), ("run", False, False),
        ("build --select x", False, False), ("build -s x -f", False, True), ("test", False, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("variables", ["", ", vars: {a: 1}"], ids=["", "vars"])
def test_only_a_build_of_everything_is_whole(tmp_path, command, whole, full_refresh, variables) -> None:
    job = read(tmp_path, f"jobs: {{a: {{dbt: {command}{variables}}}}}")["a"]
    assert (job.whole, job.full_refresh) == (whole, full_refresh)


@pytest.mark.parametrize(
    ("entry", "line", "message"),
    [
        pytest.param("a: {}", 3, "dbt is missing", id="no command"),
        pytest.param("a:\n    description: x\n    dbt: []", 5, "dbt has no command", id="an empty list of commands"),
        pytest.param("a:\n    dbt:", 4, "dbt must begin with one of build, run", id="nothing after dbt"),
        pytest.param("a:\n    dbt: deps", 4, "dbt must begin with one of", id="a command that is no job"),
        pytest.param("a:\n    dbt: source", 4, "source freshness", id="half a command"),
        pytest.param("a:\n    dbt:\n    - run\n    - fly", 6, "dbt must begin with one of", id="the second of two commands"),
        pytest.param("a:\n    dbt: [run, {x: y}]", 4, "dbt must begin with one of", id="a mapping for a command"),
        pytest.param('a:\n    dbt: run -s "x', 4, "No closing quotation", id="an open quote"),
        pytest.param("a:\n    dbt: run --target prod", 4, "--target cannot be set here", id="a target"),
        pytest.param("a:\n    dbt: run --target=prod", 4, "--target=prod cannot be set here", id="a target in one word"),
        pytest.param("a:\n    dbt: run -t prod", 4, "-t cannot be set here", id="a target, in short"),
        pytest.param("a:\n    dbt: run -tprod", 4, "-tprod cannot be set here", id="a target, in short and in one word"),
        pytest.param("a:\n    dbt: run --project-dir /x", 4, "--project-dir cannot be set here", id="another project"),
        pytest.param("a:\n    dbt: run --log-path /x", 4, "--log-path cannot be set here", id="a log"),
        pytest.param("a:\n    dbt: \"run --vars '{a: 1}'\"", 4, "set variables under vars", id="variables in the command"),
        pytest.param("a:\n    dbt: run\n    vars: [a]", 5, "vars must be a mapping", id="variables in a list"),
        pytest.param("a:\n    dbt: run\n    vars: {a: 2026-02-30}", 5, "day is out of range", id="a date that does not exist"),
        pytest.param("a:\n    dbt: run\n    vars: {a: !x 1}", 5, "!x", id="a tag that nobody knows"),
        pytest.param("a:\n    dbt: run\n    vars: {2026-02-03: 1}", 5, "vars cannot be passed to dbt", id="a date for a name"),
        pytest.param("a:\n    dbt: run\n    vars: &v {a: *v}", 5, "vars cannot be passed to dbt", id="variables that contain themselves"),
        pytest.param("a:\n    dbt: run\n    schedule: 0 5 * *", 5, "not a cron expression of five fields", id="four fields"),
        pytest.param("a:\n    dbt: run\n    schedule: '@reboot'", 5, "not a cron expression of five fields", id="a word for a schedule"),
        pytest.param("a:\n    dbt: run\n    schedule: 5", 5, "schedule must be text", id="a number for a schedule"),
        pytest.param("a:\n    dbt: run\n    timezone: Europe/Zurch", 5, "no time zone 'Europe/Zurch'", id="an unknown time zone"),
        pytest.param("a:\n    dbt: run\n    timezone: ../../etc", 5, "no time zone", id="a path for a time zone"),
        pytest.param("a:\n    dbt: run\n    timezone: [x]", 5, "timezone must be text", id="a list for a time zone"),
        pytest.param("a:\n    dbt: run\n    description: [x]", 5, "description must be text", id="a list for a description"),
        pytest.param("a:\n    dbt: run\n    cron: 0 5 * * *", 5, "a job has no key 'cron'", id="an unknown key"),
        pytest.param("a:\n    dbt: run\n    dbt: test", 5, "dbt is here twice", id="a key twice"),
        pytest.param("a: {dbt: run}\n  a: {dbt: test}", 4, "a is here twice", id="a job twice"),
        pytest.param("a-b: {dbt: run}", 3, "'a-b' is not a valid name of a job", id="a name with a dash"),
        pytest.param("import: {dbt: run}", 3, "'import' cannot be the name of a job", id="a word of Python's"),
        pytest.param("input: {dbt: run}", 3, "'input' cannot be the name of a job", id="a word of Dagster's"),
        pytest.param("1a: {dbt: run}", 3, "'1a' is not a valid name of a job", id="a name with a digit first"),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path, entry, line, message) -> None:
    (found,) = mistakes(tmp_path, f"# of mine\njobs:\n  {entry}\n")
    assert found.startswith(f"{jobs.FILE}:{line}: ")
    assert message in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: The file must be a mapping"),
        ("- a", ":1: The file must be a mapping"),
        ("jobs:", ":1: jobs must be a mapping"),
        ("jobs: {}", ":1: jobs is empty"),
        ("schedules: {}", ":1: there is no key 'schedules'"),
        ("\n\njob: {}", ":3: jobs is missing"),
        ("jobs:\n  a: run", ":2: The job a must be a mapping"),
        ("jobs: {a: [}", "cannot be read"),
        ("jobs: {}\n---\njobs: {}", "cannot be read"),
    ],
)
def test_a_file_that_has_no_jobs_is_reported(tmp_path, text, message) -> None:
    assert message in "\n".join(mistakes(tmp_path, text))


def test_a_file_that_is_not_text_is_reported(tmp_path) -> None:
    (tmp_path / jobs.FILE).write_bytes(b"jobs: \xff")
    with pytest.raises(jobs.JobsError, match="cannot be read"):
        jobs.read(tmp_path)


def test_every_mistake_is_reported_at_once(tmp_path) -> None:
    text = """\
job: {}
jobs:
  a-b: {dbt: fly}
  good: {dbt: run}
  c:
    schedule: daily
    timezone: Mars
"""
    found = mistakes(tmp_path, text)
    assert [line.split(":")[1] for line in found] == ["1", "3", "3", "5", "6", "7"]


def test_a_process_reads_the_jobs_of_its_project(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SWITCHYARD_SOURCE_PATH", str(tmp_path))
    (tmp_path / jobs.FILE).write_text("jobs: {a: {dbt: run}}")
    jobs.load.cache_clear()
    try:
        assert list(jobs.load()) == ["a"]
    finally:
        jobs.load.cache_clear()


@pytest.mark.parametrize(
    ("word", "cron"), [("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *")]
)
def test_a_shortcut_of_crontab_becomes_its_five_fields(tmp_path, word, cron) -> None:
    assert read(tmp_path, f"jobs: {{a: {{dbt: run, schedule: {json.dumps(word)}}}}}")["a"].cron == cron


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *",
        "0 5 * * *",
        "*/15 0-6,22 1,15 JAN-mar mon-fri",
        "59 23 31 12 7",
        "0 0 1-31/2 * sun",
        "5,10-20/5 * * * *",
        "0/15 * * * *",
        "* * * nov-feb fri-sun",
    ],
)
def test_a_cron_expression_is_accepted(tmp_path, cron) -> None:
    assert read(tmp_path, f"jobs: {{a: {{dbt: run, schedule: {json.dumps(cron)}}}}}")["a"].cron == cron


@pytest.mark.parametrize(
    "cron",
    [
        "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 * ", "* * * * 8", "*/0 * * * *", "*/60 * * * *", "1-2-3 * * * *",
        "a * * * *", "* * * foo *", "* * * * mond", "*  * * * *", "* * * *", "* * * * * *", "1, * * * *", "-1 * * * *",
        "\u0661 * * * *", "", "@reboot", "* * L * *",
    ],
)  # fmt: skip
def test_an_invalid_schedule_is_reported(tmp_path, cron) -> None:
    (found,) = mistakes(tmp_path, f"jobs:\n  a:\n    dbt: run\n    schedule: {json.dumps(cron)}\n")
    assert found.startswith(f"{jobs.FILE}:4: ")
    assert "not a cron expression of five fields" in found


@pytest.mark.parametrize(
    ("commands", "options", "asked"),
    [
        ("build", {"select": "+orders tag:x"}, ["build --select '+orders tag:x'"]),
        ("build --select a b --exclude c --threads 2", {"select": "d"}, ["build --select d --exclude c --threads 2"]),
        ("run -s a -m b --models c d --full-refresh --selector=e", {"select": "f"}, ["run --select f --full-refresh"]),
        ("build", {"full_refresh": True}, ["build --full-refresh"]),
        ("run -f -s a", {"full_refresh": True}, ["run -f -s a"]),
        ("[seed, test -s a, build]", {"full_refresh": True}, ["seed --full-refresh", "test -s a", "build --full-refresh"]),
        ("[source freshness, run]", {"select": "a"}, ["source freshness --select a", "run --select a"]),
        ("build", {"vars": {"day": "2026-01-01"}}, ["build --vars \"{day: '2026-01-01'}\""]),
        ("build", {}, ["build"]),
        ("build --select a b --exclude c d -f", {}, ["build --select 'a b' --exclude 'c d' -f"]),
    ],
)
def test_options_of_one_run_are_added_to_every_command(tmp_path, commands, options, asked) -> None:
    job = read(tmp_path, f"jobs: {{a: {{dbt: {commands if commands[0] == '[' else json.dumps(commands)}}}}}")["a"]
    assert [" ".join(map(shlex.quote, command)) for command in job.asked(Options(**options)).commands] == [
        " ".join(map(shlex.quote, shlex.split(command))) for command in asked
    ]


def test_variables_of_one_run_override_those_of_the_job(tmp_path) -> None:
    job = read(tmp_path, "jobs: {a: {dbt: [seed, run -s x], vars: {a: 1, b: {c: 2}}}}")["a"].asked(Options(vars={"a": None, "d": [3]}))
    assert [yaml.safe_load(command[2]) for command in job.commands] == [{"a": None, "b": {"c": 2}, "d": [3]}] * 2
    assert job.dbt_args[3:] == ("-s", "x")


@pytest.mark.parametrize("command", ["test", "snapshot", "source freshness"])
def test_a_full_refresh_of_a_job_that_builds_nothing_is_refused(tmp_path, command) -> None:
    with pytest.raises(JobsError, match="only dbt build, run, seed"):
        read(tmp_path, f"jobs: {{a: {{dbt: {command}}}}}")["a"].asked(Options(full_refresh=True))


@pytest.mark.parametrize(
    "values", [{"select": "--inline x"}, {"select": "-s"}, {"select": None}, {"vars": []}, {"vars": {1: 2}}, {"full_refresh": "yes"}]
)
def test_options_that_could_be_other_flags_of_dbt_are_refused(values) -> None:
    with pytest.raises(JobsError):
        Options(**values)
