"""The warm dbt never uses a stale parse: no matter what changes between and during commands, it does the same as the plain dbt.

Each step changes a small project at random, then runs the warm and the plain dbt from the same last parse, and compares the
exit code, the output, and the manifests with all compiled SQL. To reproduce a failure, take its seed:
WARM_SEED=... WARM_STEPS=200 pytest tests/native/test_warm_parse.py
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ..stacks import wait_until
from .conftest import warm_dbt_answers

STEPS = int(os.environ.get("WARM_STEPS", "7"))
SEED = int(os.environ.get("WARM_SEED", "0")) or random.randrange(1, 10**6)
VOLATILE = {"created_at", "generated_at", "invocation_id", "invocation_started_at", "run_started_at", "invocation_command"}
ARTIFACTS = ("manifest.json", "partial_parse.msgpack")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a warm dbt on Linux only")


# Variables of Dagster's dbt that belong to the shop.
NOT_ITS = ("DBT_PACKAGES_PATH", "SWITCHYARD_BAKED_PATH", "DBT_PROFILE", "DBT_TARGET")


class WarmProject:
    """A dbt project that changes at random."""

    def __init__(self, folder: Path, rand: random.Random) -> None:
        self.folder, self.rand = folder, rand
        self.options: list[str] = []
        self.env: dict[str, str] = {}
        self.settings("1")
        self.profile("dev")
        for number in range(4):
            self.write(f"models/m{number}.sql", "select 1 as id")
        self.write("macros/a.sql", "{% macro a() %}1{% endmacro %}")
        self.write("seeds/s0.csv", "id\n1\n")
        self.package()

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def some(self, pattern: str) -> Path | None:
        files = sorted(self.folder.glob(pattern))
        return self.rand.choice(files) if files else None

    def settings(self, value: str) -> None:
        self.write(
            "dbt_project.yml",
            f"name: p\nprofile: p\nvars:\n  v: {value}\nmodels:\n  p:\n    +tags: \"{{{{ env_var('E1', 't') }}}}\"\n",
        )

    def profile(self, schema: str) -> None:
        output = "type: postgres, host: 127.0.0.1, port: 1, user: u, password: p, dbname: d, threads: 1"
        other = "\"{{ env_var('E2', 'x') }}\""
        outputs = f"    dev: {{{output}, schema: {schema}}}\n    other: {{{output}, schema: {other}}}\n"
        self.write("profiles.yml", f"p:\n  target: dev\n  outputs:\n{outputs}")

    def package(self) -> None:
        self.write("packages.yml", "packages:\n  - local: ../q\n")
        self.write("dbt_packages/q/dbt_project.yml", f"name: q\nvars:\n  w: {self.rand.randrange(99)}\n")
        self.write("dbt_packages/q/macros/q.sql", f"{{% macro q() %}}{self.rand.randrange(99)}{{% endmacro %}}")
        self.write(f"dbt_packages/q/models/q{self.rand.randrange(2)}.sql", "select {{ var('w') }} as id")

    def model(self) -> str:
        names = [file.stem for file in [*self.folder.glob("models/*.sql"), *self.folder.glob("seeds/*.csv")]]
        parts = [
            "{{ a() }}", "{{ q.q() }}", "{{ var('v') }}", "{{ env_var('E0', 'none') }}", "{{ target.schema }}", "{{ target.name }}",
            "'{{ b }}'", "{{ this }}", "{{ invocation_args_dict.get('vars') }}", "{{ flags.FULL_REFRESH }}", "{{ model.config.tags }}",
            "{{ dbt.string_literal('x') }}", "{{ doc_x | default('y') }}", str(self.rand.randrange(999)),
        ]  # fmt: skip
        head = self.rand.choice(
            ["", "{{ config(materialized='table') }}", "{{ config(enabled=var('v') != 3) }}", "{{ config(alias='al') }}"]
        )
        later = [name for name in names if name.startswith("s") or name > "m1"]  # so that few references are circular
        source = f"{{{{ ref('{self.rand.choice(later)}') }}}}" if later and self.rand.random() < 0.5 else "(select 1)"
        return f"{head} select {', '.join(self.rand.sample(parts, 3))} from {source} as x"

    def change(self) -> str:
        """Make a random change, and return its name."""
        changes = [
            self.edit_model, self.edit_model, self.rename_model, self.delete_model, self.edit_macro, self.delete_macro, self.override,
            self.edit_seed, self.edit_yml, self.edit_yml, self.delete_yml, self.edit_package, self.delete_package, self.edit_settings,
            self.edit_profile, self.edit_env, self.edit_options, self.repair, self.repair,
        ]  # fmt: skip
        change = self.rand.choice(changes)
        change()
        return change.__name__

    def edit_model(self) -> None:
        self.write(f"models/m{self.rand.randrange(2)}.sql", self.model())

    def rename_model(self) -> None:
        if file := self.some("models/*.sql"):
            file.rename(file.with_stem(f"m{self.rand.randrange(6)}"))

    def delete_model(self) -> None:
        if file := self.some("models/*.sql"):
            file.unlink()

    def edit_macro(self) -> None:
        self.write("macros/a.sql", f"{{% macro a() %}}{self.rand.choice(['1', '2', '{{ q.q() }}', '{{ broken'])}{{% endmacro %}}")

    def delete_macro(self) -> None:
        if file := self.some("macros/*.sql"):
            file.unlink()

    def override(self) -> None:
        body = self.rand.choice(["{{ target.schema }}_x", "{{ custom_schema_name or 'y' }}"])
        self.write("macros/schema.sql", f"{{% macro generate_schema_name(custom_schema_name, node) %}}{body}{{% endmacro %}}")

    def edit_seed(self) -> None:
        self.write(f"seeds/s{self.rand.randrange(2)}.csv", f"id\n{self.rand.randrange(9)}\n")

    def edit_yml(self) -> None:
        name, text = f"m{self.rand.randrange(4)}", self.rand.randrange(99)
        test = self.rand.choice(["unique", "not_null", "accepted_values: {arguments: {values: [1]}}"])
        yml = f"models:\n  - name: {name}\n    description: d{text}\n    config: {{meta: {{x: \"{{{{ var('v') }}}}\"}}}}\n"
        self.write("models/y.yml", f"{yml}    columns:\n      - name: id\n        data_tests:\n          - {test}\n")

    def delete_yml(self) -> None:
        (self.folder / "models/y.yml").unlink(missing_ok=True)

    def edit_package(self) -> None:
        self.package()

    def delete_package(self) -> None:
        shutil.rmtree(self.folder / "dbt_packages", ignore_errors=True)
        if self.rand.random() < 0.7:
            (self.folder / "packages.yml").unlink(missing_ok=True)

    def edit_settings(self) -> None:
        self.settings(str(self.rand.randrange(4)))

    def edit_profile(self) -> None:
        self.profile(self.rand.choice(["dev", "dev2"]))

    def edit_env(self) -> None:
        name = self.rand.choice(["E0", "E1", "E2", "DBT_ENV_CUSTOM_ENV_X", "DBT_WARN_ERROR", "DBT_PARTIAL_PARSE", "TZ"])
        self.env.pop(name, None)
        if self.rand.random() < 0.7:
            values = {"DBT_WARN_ERROR": "true", "DBT_PARTIAL_PARSE": "false", "TZ": "Asia/Kolkata"}
            self.env[name] = values.get(name, self.rand.choice(["k", "l"]))

    def edit_options(self) -> None:
        self.options = self.rand.choice([[], ["--vars", "{v: 7}"], ["--vars", "{b: 1, v: 3}"], ["--target", "other"], ["--full-refresh"]])

    def repair(self) -> None:
        """Replace everything that may be broken."""
        for file in self.folder.glob("m*/*"):
            file.unlink()
        for number in range(4):
            self.write(f"models/m{number}.sql", "select {{ a() }} as id" if number > 1 else self.model())
        self.write("macros/a.sql", "{% macro a() %}1{% endmacro %}")
        self.package()


class Pair:
    """The warm dbt, with its own server, and the plain one."""

    def __init__(self, project: WarmProject, environ: dict[str, str], folder: Path, root: Path) -> None:
        self.project, self.environ, self.folder = project, environ, folder
        self.programs = {"warm": str(root / "rundbt" / "bin" / "dbt"), "plain": shutil.which("dbt", path=environ["PATH"])}
        for name in ("warm", "plain"):
            (folder / name).mkdir()
        self.log = folder / "server.log"
        with open(self.log, "w") as log:
            self.parent = subprocess.Popen(
                [sys.executable, "-m", "rundbt.warm", "sleep", "3600"], env=self.env("warm"), stdout=log, stderr=log, cwd=folder
            )
        wait_until(lambda: warm_dbt_answers(folder / "warm"), 60)

    def env(self, name: str) -> dict[str, str]:
        folders = ("DBT_PROJECT_DIR", "DBT_PROFILES_DIR", "SWITCHYARD_SOURCE_PATH")
        here = {key: str(self.project.folder) for key in folders}
        target = str(self.folder / name)
        places = {"SWITCHYARD_TARGET_PATH": target, "DBT_TARGET_PATH": target, "DBT_LOG_PATH": f"{target}/log"}
        kept = {key: value for key, value in self.environ.items() if key not in NOT_ITS}
        return {**kept, **here, **places, **self.project.env}

    def start(self, name: str, *args: str) -> subprocess.Popen[str]:
        argv = [self.programs[name], "--no-use-colors", *args]
        return subprocess.Popen(argv, env=self.env(name), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def nowhere(self, text: str) -> str:
        """The text without the target folders: the parse that both start from contains the folder of the one that wrote it."""
        return text.replace(str(self.folder / "warm"), "TARGET").replace(str(self.folder / "plain"), "TARGET")

    def result(self, name: str, process: subprocess.Popen[str]) -> dict:
        """Exit code, output and manifest of a command."""
        out = self.nowhere(process.communicate(timeout=120)[0])
        out = re.sub(
            r"\d\d:\d\d:\d\d|0x\w+|\d+\.\d+ ?s(econds)?|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT?[\d:.]+Z?", "", out
        )
        manifest = self.folder / name / "manifest.json"
        compiled = steady(json.loads(manifest.read_text())) if manifest.exists() else None
        text = self.nowhere(json.dumps(compiled, indent=1, sort_keys=True))
        return {"code": process.returncode, "printed": sorted(out.splitlines()), "manifest": text.splitlines()}

    def compare(self, *args: str) -> tuple[dict, dict]:
        """Run both from the same last parse."""
        for file in ARTIFACTS:
            (self.folder / "plain" / file).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copy(self.folder / "warm" / file, self.folder / "plain")
        both = {name: self.start(name, *args) for name in ("warm", "plain")}
        return self.result("warm", both["warm"]), self.result("plain", both["plain"])

    def close(self) -> None:
        self.parent.send_signal(signal.SIGTERM)
        self.parent.wait()


def steady(value: object) -> object:
    """The manifest without the values that differ each time."""
    if isinstance(value, dict):
        return {key: steady(part) for key, part in value.items() if key not in VOLATILE}
    return [steady(part) for part in value] if isinstance(value, list) else value


@pytest.fixture
def pair(stack, tmp_path, root) -> Iterator[Pair]:
    stack.on("dagster")
    environ = stack.root("dagster-code").environ()
    pair = Pair(WarmProject(tmp_path / "p", random.Random(SEED)), environ, tmp_path, stack.folder)
    yield pair
    pair.close()


@pytest.mark.long
def test_it_never_uses_a_stale_parse(pair) -> None:
    project, rand = pair.project, pair.project.rand
    codes = []
    for step in range(STEPS):
        done = [project.change() for _ in range(rand.randrange(1, 4))] if step else []
        if step and rand.random() < 0.4:  # during a command
            running = pair.start("warm", "compile", "--no-populate-cache", *project.options)
            time.sleep(rand.random())
            done.append(f"during: {project.change()}")
            running.communicate(timeout=120)
        compiling = ["compile", "--no-populate-cache"]
        command = rand.choice([compiling, compiling, ["ls", "--output", "json"], ["parse"]])
        options = [option for option in project.options if command is compiling or option != "--full-refresh"]
        warm, plain = pair.compare(*command, *options)
        codes.append(plain["code"])
        for part, seen in plain.items():
            assert warm[part] == seen, f"WARM_SEED={SEED}, step {step}: {part} after {', '.join(done)}: {command} {options} {project.env}"
    print(f"WARM_SEED={SEED}", codes, pair.log.read_text())
    assert 0 in codes
    assert "plain dbt" not in pair.log.read_text()
