"""Shared by the unit tests."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from dotenv import dotenv_values

from switchyard import ROOT, settings


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch) -> None:
    """No variable of the shell overrides a setting, except those that a test sets."""
    for key in ("COMPOSE_PROJECT_NAME", *dotenv_values(ROOT / ".env.example", interpolate=False)):
        monkeypatch.delenv(key, raising=False)


@pytest.fixture
def unconfigured(tmp_path_factory, root) -> settings.Settings:
    """The settings of the checkout under test without its ``.env``, in which a user may have anything."""
    folder: Path = tmp_path_factory.mktemp("example")
    shutil.copy(root / ".env.example", folder)
    loaded, _ = settings.load(folder, {}, write=False)
    return replace(loaded, root=root, values={**loaded.values, "SWITCHYARD_SOURCE_PATH": str(root / "dbt_project")})
