"""`invoke status` as a table, with the fake runtime."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from switchyard import status

from .test_lifecycle import Fake


@pytest.mark.parametrize("shared", [True, False])
def test_the_stacks_own_database_is_shown_only_if_the_project_uses_it(tmp_path, capsys, shared) -> None:
    runtime = Fake(tmp_path, active="new")
    runtime.settings = replace(runtime.settings, values={**runtime.settings.values, "WORKERS": ""})
    runtime.project_place = "read in place"
    runtime.project = SimpleNamespace(database="jaffle", shared=shared)
    status.print_table(runtime)
    output = capsys.readouterr().out
    assert "read in place" in output
    assert ("database jaffle" in output) is shared
