"""The pipeline through each orchestrator: what it builds, what it reports, and how a change on the host reaches it."""

import subprocess

import pytest

from rundbt.jobs import DEFAULT

from ..stacks import DAGSTER, mostly_long
from .conftest import PROJECT

BROKEN_MODEL = "select no_such_column from {{ ref('fct_orders') }}\n"
# The tested model has no models downstream, which a failed test would skip.
BROKEN_TEST = "{{ config(severity='error') }} select cohort_month from {{ ref('rpt_customer_cohorts') }} limit 3\n"
NEW_MODEL = "select count(*) as orders from {{ ref('fct_orders') }}\n"


def clean(stack) -> bool:
    """Whether git reports no change in the checkout."""
    return subprocess.check_output(["git", "status", "--porcelain"], cwd=stack.folder, text=True) == ""


def image_id(orchestrator: str) -> str:
    """The id of the orchestrator's image."""
    argv = ["docker", "image", "inspect", "--format", "{{.Id}}", f"{PROJECT}-{orchestrator}:local"]
    return subprocess.check_output(argv, text=True)


@pytest.mark.parametrize("job", mostly_long(DEFAULT, "daily"))
def test_every_job_runs_and_reports_each_node(stack, orchestrator, reference, job) -> None:
    out = stack.invoke("run", "--job", job).stdout
    assert f"{job} succeeded on" in out
    if job in ("daily", "full_refresh"):
        for kind, name in (("seed", "raw_orders"), ("model", "fct_orders"), ("snapshot", "product_prices"), ("test", "no_negative_margin")):
            assert any(line.split()[1:3] == [kind, name] for line in out.splitlines()), (kind, name)
        assert any(" unit_test " in line for line in out.splitlines())
    elif job == "smoke":
        assert " model " not in out
        assert " test " in out
    else:
        assert " source " in out
    assert stack.hashes() == reference
    assert clean(stack)


@pytest.mark.long  # in the short form, tests/native/test_projects.py breaks more
def test_a_broken_node_is_shown_with_its_error_until_it_is_repaired(stack, orchestrator, reference) -> None:
    with stack.edited("models/marts/dim_products_v2.sql", "select * from {{ ref('nowhere') }}\n"):
        done = stack.invoke("run", code=1)
    assert "dim_products" in done.stderr
    assert "nowhere" in done.stderr
    with (
        stack.edited("models/marts/rpt_sales_summary.sql", BROKEN_MODEL),
        stack.edited("tests/no_negative_quantities.sql", BROKEN_TEST),
    ):
        done = stack.invoke("run", code=1)
    assert "model rpt_sales_summary: " in done.stderr
    assert 'column "no_such_column" does not exist' in done.stderr
    assert "test no_negative_quantities: Got 3 results, configured to fail if != 0" in done.stderr
    repaired = stack.invoke("run", "--failed").stdout
    assert "model     rpt_sales_summary" in repaired
    assert "model     fct_orders" not in repaired
    assert stack.hashes() == reference


@pytest.mark.parametrize("orchestrator", DAGSTER, indirect=True)
def test_a_model_added_on_the_host_runs_without_a_rebuild(stack, orchestrator) -> None:
    images = stack.ours("ps", "{{.ID}} {{.Image}}"), image_id(orchestrator)
    with stack.edited("models/intermediate/order_count.sql", NEW_MODEL):
        out = stack.invoke("run", "--select", "order_count").stdout
    assert any(line.split()[:3] == ["success", "model", "order_count"] for line in out.splitlines())
    assert stack.sql("select orders = (select count(*) from marts.fct_orders) from intermediate.order_count") == "t"
    assert (stack.ours("ps", "{{.ID}} {{.Image}}"), image_id(orchestrator)) == images
    stack.invoke("sql", "drop view if exists intermediate.order_count", code=None)


def test_a_container_cannot_write_to_the_hosts_project(stack, orchestrator) -> None:
    mounted = 0
    for service in stack.status()["services"]:
        container = stack.container(service["name"])
        if not any(mount["Destination"] == "/opt/dbt/project" for mount in container["Mounts"]):
            continue
        mounted += 1
        tried = subprocess.run(
            ["docker", "exec", "-u", "0", container["Id"], "touch", "/opt/dbt/project/x"], capture_output=True, text=True
        )
        assert "Read-only file system" in tried.stderr
        assert not [mount for mount in container["Mounts"] if mount["Type"] == "bind" and mount["RW"]]
    assert mounted
    assert clean(stack)


@pytest.mark.parametrize("orchestrator", DAGSTER, indirect=True)
def test_the_baked_image_runs_without_any_mount(stack, orchestrator, reference) -> None:
    try:
        stack.invoke("up", "--orch", orchestrator, "--baked")
        status = stack.status()
        assert status["dbt_project"] == "baked"
        for service in status["services"]:
            assert not [mount for mount in stack.container(service["name"])["Mounts"] if mount["Type"] == "bind"]
        with stack.edited("models/marts/rpt_sales_summary.sql", BROKEN_MODEL):
            stack.invoke("run")
        assert stack.hashes() == reference
    finally:
        stack.invoke("up", "--orch", orchestrator)
    assert stack.status()["dbt_project"] == "mounted"
