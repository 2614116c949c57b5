"""Rules for the shop's files whose violation an ordinary run does not show."""

from __future__ import annotations

import yaml

from ..stacks import ROOT


def test_no_source_has_a_test() -> None:
    """It would depend on no seed, so the first run, on an empty database, might start it before the seed's view exists."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "dbt_project" / "models").rglob("*.yml")]
    tables = [table for file in files for source in file.get("sources", ()) for table in source["tables"]]
    assert tables
    keys = {"data_tests", "tests"}  # `tests` is the older name
    assert [table["name"] for table in tables if any(keys & part.keys() for part in (table, *table["columns"]))] == []


def test_a_singular_test_is_configured_in_its_own_file() -> None:
    """dbt forgets the configuration in a YAML file if it parses the test again but not that file, as after a change of a macro."""
    content = yaml.safe_load((ROOT / "dbt_project" / "tests" / "_tests.yml").read_text(encoding="utf-8"))
    assert [test["name"] for test in content["data_tests"] if "config" in test] == []
