"""One orchestrator at a time with one PostgreSQL: switches, and what must not happen during them."""

import re
import subprocess
import threading
from pathlib import Path

import pytest

from ..stacks import PAIRS, Arguments, mostly_long
from .conftest import PROJECT


class Watch:
    """Polls `docker ps` and remembers which orchestrators were seen running at the same moment."""

    def __init__(self) -> None:
        self.seen: set[frozenset[str]] = set()
        self.polls = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        argv = [
            "docker",
            "ps",
            "--filter",
            f"label=com.docker.compose.project={PROJECT}",
            "--format",
            '{{.Label "switchyard.orchestrator"}}',
        ]
        while not self._stop.wait(0.1):
            done = subprocess.run(argv, capture_output=True, text=True)
            if done.returncode == 0:
                self.seen.add(frozenset(done.stdout.split()))
                self.polls += 1


@pytest.mark.parametrize("pair", mostly_long(PAIRS, ("prefect", "dagster")), ids="-".join)  # tests/native has all three
def test_a_switch_keeps_postgres_and_shows_one_orchestrator_at_a_time(stack, reference, pair) -> None:
    old, new = pair
    stack.on(old)
    postgres = stack.container("postgres")
    with Watch() as watch, Arguments() as arguments:
        stack.invoke("switch", new)
    after = stack.container("postgres")
    assert (after["Id"], after["State"]["StartedAt"]) == (postgres["Id"], postgres["State"]["StartedAt"])
    assert watch.polls > 10
    assert max(len(names) for names in watch.seen) == 1, watch.seen
    assert stack.status()["orchestrator"] == new
    with arguments:
        stack.invoke("run", "--select", "dim_customers")
    assert stack.hashes() == reference
    assert arguments.of("run_job.py")
    assert stack.leaked("\n".join(arguments.seen)) == []


def test_the_other_runtime_is_refused_while_this_one_is_up(stack) -> None:
    stack.on("dagster")
    before = stack.container("dagster-code")["Id"]
    assert "up on the runtime docker" in stack.invoke("up", "--runtime", "native", code=4).stderr
    assert stack.container("dagster-code")["Id"] == before
    assert not (stack.folder / ".stack" / "native").exists()


def test_up_of_a_second_orchestrator_is_refused_and_changes_nothing(stack) -> None:
    stack.on("dagster")
    before = stack.status()["services"]
    done = stack.invoke("up", "--orch", "prefect", code=4)
    assert "invoke switch prefect" in done.stderr
    assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]


@pytest.mark.parametrize(
    "args", [("switch", "--help"), ("switch", "prefct"), ("switch", "--dry"), ("--dry", "switch", "prefect")], ids=" ".join
)
def test_a_command_that_does_not_switch_stops_nothing(stack, args) -> None:
    stack.on("dagster")
    before = stack.status()["services"]
    stack.invoke(*args, code=None)
    assert [service["id"] for service in stack.status()["services"]] == [service["id"] for service in before]


def test_a_switch_to_a_target_that_cannot_start_is_rolled_back(stack) -> None:
    stack.on("dagster")
    file = stack.folder / "compose" / "docker-compose-prefect.yaml"
    good = file.read_text()
    file.write_text(good.replace("healthcheck:", "entrypoint: ['sh', '-c', 'echo it breaks here; exit 3']\n    healthcheck:"))
    try:
        done = stack.invoke("switch", "prefect", code=7)
    finally:
        file.write_text(good)
    assert "it breaks here" in done.stderr
    assert "it breaks here" in Path(re.search(r"more of them: (.*)\)", done.stderr)[1]).read_text()
    assert "next: Fix what its log shows, then: invoke switch prefect" in done.stderr
    assert "Dagster is active again" in done.stderr
    assert stack.status()["orchestrator"] == "dagster"
    stack.invoke("run", "--job", "smoke")


@pytest.mark.long
def test_dbt_cannot_read_airflows_tables(stack) -> None:
    stack.on("airflow")
    counted = "select count(*) > 10, count(*) filter (where has_table_privilege('dbt', oid, 'select'))"
    assert stack.sql(f"{counted} from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'") == "t\t0"
