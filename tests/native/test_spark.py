"""Projects whose warehouse is a distributed engine: Spark, with a master, two workers and a Thrift server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from switchyard import ports, python_packages

from .. import own, runs
from ..stacks import MARTS, ROOT, copy_checkout, wait_until
from .conftest import NativeStack, removed
from .test_own_project import ORCHESTRATORS
from .test_ports import SNAPSHOT, marts, port

PYSPARK = "pyspark==4.3.0"
CLASSES = "org.apache.spark"

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name == "nt" or not shutil.which("java"), reason="Spark needs a shell and Java")]


def answers(port: int) -> bool:
    """Whether a program listens on the port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Cluster:
    """Spark's processes, each a JVM, and their ports."""

    def __init__(self, home: Path, work: Path) -> None:
        self.home, self.work = home, work
        self.port, self.page, self.thrift, self.driver = ports.unused_ports(4)
        self.processes = ExitStack()

    def start(self, *argv: str) -> None:
        """Start a process in its own folder."""
        folder = self.work / str(len(list(self.work.iterdir())))
        folder.mkdir()
        env = {**os.environ, "SPARK_HOME": str(self.home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(folder / "work")}
        log = self.processes.enter_context((folder / "log").open("w"))
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        self.processes.callback(process.wait)
        self.processes.callback(process.kill)

    def ask(self, port: int, path: str) -> Any:
        """The JSON of one of the pages."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
            return json.load(answer)

    def workers(self) -> int:
        """The number of the master's workers; its page answers before all its paths exist."""
        with suppress(OSError):
            return int(self.ask(self.page, "json/")["aliveworkers"])
        return 0

    def tasks(self) -> dict[str, int]:
        """The number of tasks that each executor has done."""
        (application,) = self.ask(self.driver, "api/v1/applications")
        executors = self.ask(self.driver, f"api/v1/applications/{application['id']}/executors")
        return {executor["id"]: executor["totalTasks"] for executor in executors if executor["id"] != "driver"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A running cluster."""
    folder = tmp_path_factory.mktemp("spark")
    packages = folder / "packages"
    subprocess.run(
        [*python_packages.UV, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(packages), PYSPARK], check=True
    )
    work = folder / "work"
    work.mkdir()
    found = Cluster(packages / "pyspark", work)
    address = f"spark://127.0.0.1:{found.port}"
    spark_class, submit = (str(found.home / "bin" / name) for name in ("spark-class", "spark-submit"))
    with found.processes:
        where = ["--host", "127.0.0.1", "--port", str(found.port), "--webui-port", str(found.page)]
        found.start(spark_class, f"{CLASSES}.deploy.master.Master", *where)
        wait_until(lambda: answers(found.port) and answers(found.page), 120)
        for _ in range(2):
            found.start(spark_class, f"{CLASSES}.deploy.worker.Worker", "-c", "1", "-m", "1g", "--webui-port", str(ports.unused()), address)
        wait_until(lambda: found.workers() == 2, 120)
        found.start(
            submit, "--class", f"{CLASSES}.sql.hive.thriftserver.HiveThriftServer2", "--master", address, "--driver-memory", "1g",
            "--conf", f"spark.ui.port={found.driver}", "--conf", "spark.sql.shuffle.partitions=4",
            "--conf", "spark.sql.session.timeZone=UTC",
            "--conf", f"spark.sql.warehouse.dir={folder / 'warehouse'}", "spark-internal",
            "--hiveconf", f"hive.server2.thrift.port={found.thrift}", "--hiveconf", "hive.server2.thrift.bind.host=127.0.0.1",
        )  # fmt: skip
        wait_until(lambda: answers(found.thrift) and answers(found.driver), 180)
        yield found


@pytest.fixture(scope="module")
def stack(tmp_path_factory, bare_path, cluster) -> Iterator[NativeStack]:
    """A stack with the project `spread`."""
    folder = (tmp_path_factory.mktemp("spread") / "switchyard").resolve()
    copy_checkout(ROOT, folder)
    stack = NativeStack(folder, PATH=bare_path, THRIFT_PORT=str(cluster.thrift))
    project = tmp_path_factory.mktemp("projects") / "spread"
    shutil.copytree(ROOT / "tests" / "projects" / "spread", project)
    before = own.listing(project)
    try:
        assert "target cluster (spark)" in stack.invoke("use", str(project)).stdout
        yield stack
        assert own.listing(project) == before
    finally:
        stack.remove()


@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_a_distributed_engine_is_the_warehouse(stack, cluster, name) -> None:
    stack.on(name)
    done = cluster.tasks()
    run = runs.record(stack)
    assert run["state"] == "success", run
    assert {unique_id: status for unique_id, (status, _, _) in own.plain_names(runs.outcome(run["nodes"])).items()} == {
        "seed.spread.days": "success",
        "model.spread.numbers": "success",
        "model.spread.totals": "success",
        "test.spread.unique_totals_name": "pass",
        "test.spread.not_null_totals_name": "pass",
    }
    assert own.show(stack, "select sum(numbers) as numbers, sum(total) as total from {{ ref('totals') }}") == [
        {"numbers": 700000, "total": 700000 * 699999 // 2}
    ]
    worked = {executor: tasks - done.get(executor, 0) for executor, tasks in cluster.tasks().items()}
    assert len(worked) == 2
    assert all(worked.values()), worked


@pytest.fixture(scope="module")
def shop(tmp_path_factory, bare_path, cluster) -> Iterator[tuple[NativeStack, Path]]:
    """A stack with the shop on Spark, and the project's folder."""
    folder = (tmp_path_factory.mktemp("shop") / "switchyard").resolve()
    copy_checkout(ROOT, folder)
    stack = NativeStack(folder, PATH=bare_path, THRIFT_PORT=str(cluster.thrift))
    project = port("spark", tmp_path_factory.mktemp("projects") / "shop")
    with removed(stack):
        assert "target cluster (spark)" in stack.invoke("use", str(project)).stdout
        yield stack, project


@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_the_shop_on_spark_has_the_marts_of_postgresql(shop, cluster, name) -> None:
    stack, project = shop
    stack.on(name)
    done = cluster.tasks()
    run = runs.record(stack)
    assert run["state"] == "success", run
    assert marts(stack, project, leave=[SNAPSHOT]) == {table: found for table, found in MARTS.items() if table != SNAPSHOT}
    worked = {executor: tasks - done.get(executor, 0) for executor, tasks in cluster.tasks().items()}
    assert len(worked) == 2
    assert all(worked.values()), worked
