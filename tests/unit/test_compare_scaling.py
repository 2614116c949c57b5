"""What two workers change in a stack."""

from __future__ import annotations

import pytest

from compare.scaling import containers, services
from switchyard import orchestrators


@pytest.mark.parametrize(
    ("name", "more"), [("airflow", {"airflow-worker", "redis"}), ("dagster", {"dagster-worker", "redis"}), ("prefect", set())]
)
def test_workers_add_their_services_and_change_no_file_of_the_project(root, name, more) -> None:
    file = orchestrators.load_all(root)[name].file
    without, with_two = services(file, ""), services(file, "2")
    assert with_two.keys() - without.keys() == more
    assert containers(with_two) - containers(without) == (3 if more else 1)
    assert ("CeleryExecutor" in str(with_two)) == (name == "airflow")
