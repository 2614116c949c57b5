"""Seeing: how much of the dbt project each product's API, which its page uses, returns after a green run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.run import bare
from compare.failures import NO_SQL
from compare.model import Found, Row, Scenario, Section
from compare.products.product import Key, Product, Thing, product, texts
from compare.report import Report
from compare.trial import Trial
from switchyard import caller
from switchyard.errors import StackError

RULE = "as separate objects with their names: a task, an asset, an asset check, a task run, an event on an asset."


def shown(id: str, title: str, what: str) -> Row:
    """A row that counts what the API returns."""
    return Row(id, title, what, better="high", exact=True)


MODELS = shown("seen_models", "Models", f"Of the models in dbt's manifest, how many the public API returns after a green run {RULE}")
TESTS = shown(
    "seen_tests",
    "Tests",
    f"The same for data tests and unit tests, {RULE} Airflow has one task for all tests of a node, which does not count.",
)
SOURCES = shown(
    "seen_sources", "Sources", f"The same for sources, {RULE} Cosmos has them with `source_rendering_behavior`, which is off by default."
)
SEEDS = shown("seen_seeds", "Seeds", f"The same for seeds, {RULE}")
SNAPSHOTS = shown("seen_snapshots", "Snapshots", f"The same for snapshots, {RULE}")
EXPOSURES = shown("seen_exposures", "Exposures", f"The same for exposures, {RULE}")
DESCRIPTIONS = shown(
    "seen_descriptions",
    "Descriptions",
    "Models, tests, sources, seeds, snapshots and exposures with a description: for how many the API returns the text.",
)
COLUMNS = shown("seen_columns", "Documented columns", "Columns with a description: for how many the API returns name and text.")
OWNERS = shown("seen_owners", "Owners", "Owners of dbt's groups and exposures: how many the API returns as an owner.")
COUNTS = shown(
    "seen_row_counts",
    "Row counts",
    "Models, seeds and snapshots that are tables: for how many the API returns a number of rows. Dagster has them with"
    " `DAGSTER_TABLE_METADATA=true`, which is not the default here.",
)
JINJA = "a model without Jinja is left out, because its written and its compiled SQL are the same"
RAW = shown("seen_raw_sql", "Models' SQL as written", f"For how many SQL models the API returns the text of their file; {JINJA}.")
COMPILED = shown(
    "seen_compiled_sql",
    "Compiled SQL",
    f"For how many SQL models the API returns the output of `dbt compile`; {JINJA}. Prefect has it with"
    " `include_compiled_code=True`, which is not its default.",
)
EDGES = shown(
    "seen_edges",
    "Lineage",
    "Of the manifest's edges between sources, seeds, snapshots and models: how many the API returns as a direct edge.",
)
OF_A_KIND = {
    MODELS: ("model",),
    TESTS: ("test", "unit_test"),
    SOURCES: ("source",),
    SEEDS: ("seed",),
    SNAPSHOTS: ("snapshot",),
    EXPOSURES: ("exposure",),
}
PICTURES = Row(
    "pictures",
    "Pictures",
    "A model is broken, as in Failures; how many of three screenshots of the product's page could be taken in headless Chromium: the"
    " graph, what failed, the log.",
    better=None,
)
SHOWN = {"graph": "The graph of a run with a broken model", "node": "What failed", "log": "The log"}
RECORD_TIMEOUT_S = 60  # seconds in which a product has to record a run; or three times those of the project's first run
PICTURES_TIMEOUT_S = 600

ROWS = (*OF_A_KIND, DESCRIPTIONS, COLUMNS, OWNERS, COUNTS, RAW, COMPILED, EDGES)
IN_LINEAGE = ("source", "seed", "snapshot", "model")

# The project's nodes, from the manifest of `dbt compile`.
PRINT_PROJECT = """
import json, os
with open(os.path.join(os.environ['SWITCHYARD_TARGET_PATH'], 'bench', 'manifest.json'), encoding='utf-8') as file:
    manifest = json.load(file)
kinds = ('nodes', 'sources', 'exposures', 'unit_tests')
nodes = {id: {'kind': node['resource_type'], 'name': node['name'], 'description': node.get('description') or '',
              'columns': {name: column.get('description') or '' for name, column in (node.get('columns') or {}).items()},
              'table': node['resource_type'] in ('model', 'seed', 'snapshot')
                       and node['config'].get('materialized') not in ('view', 'ephemeral'),
              'raw': node.get('raw_code') or '' if node.get('language') == 'sql' and node['resource_type'] == 'model' else '',
              'compiled': node.get('compiled_code') or ''}
         for kind in kinds for id, node in manifest[kind].items()}
owned = [*manifest['exposures'].values(), *manifest['groups'].values()]
print(json.dumps({'nodes': nodes, 'children': manifest['child_map'], 'owners': [one['owner'] for one in owned]}))
"""


@dataclass(frozen=True)
class Declared:
    """The project, from dbt's manifest.

    Attributes:
        nodes: by id: kind, name, description, columns with their descriptions, whether it is a table, and SQL as written and compiled.
        children: the ids of the nodes that need a node, by its id.
        owners: the owners of groups and exposures.
    """

    nodes: dict[str, dict[str, Any]]
    children: dict[str, list[str]]
    owners: list[dict[str, Any]]


@dataclass(frozen=True)
class Counted:
    """All ids of some kind, and those of them that the API returns."""

    shown: list[str]
    all: list[str]


def counts(trial: Trial) -> Iterator[Found]:
    """Compile, and read the product's last run, which has to be of the whole project."""
    if not trial.whole and (run := trial.run()).code:
        raise StackError(f"The run ended with exit code {run.code}.")
    things = settled(product(trial.rig, trial.name), max(RECORD_TIMEOUT_S, 3 * trial.first))
    bare(trial.rig, trial.name, "compile")
    declared = Declared(**json.loads(trial.rig.execute(trial.name, ["python", "-c", PRINT_PROJECT])))
    for row, counted in count(declared, things).items():
        yield found(row, counted)


def settled(shown: Product, seconds: float) -> list[Thing]:
    """What a product's API returns once it has recorded all of a run: Prefect's server gets its task runs as events, with a delay.

    Raises:
        StackError: it has not recorded all after ``seconds``.
    """
    sizes: list[int] = []
    deadline = time.monotonic() + seconds
    while True:
        things = shown.things()
        sizes.append(len(repr(things)))
        if len(sizes) > 2 and len(set(sizes[-3:])) == 1:
            return things
        if time.monotonic() > deadline:
            raise StackError(f"What the API returns still changes {seconds:.0f} s after the run.")
        time.sleep(5)  # between two checks


def found(row: Row, counted: Counted) -> Found:
    """The measurement."""
    missing = sorted(set(counted.all) - set(counted.shown))
    if not counted.all:
        return Found(row.id, 0, "the project has none")
    return Found(row.id, len(counted.shown), f"of {len(counted.all)}", True if not missing else None, {"missing": missing})


def count(declared: Declared, things: Iterable[Thing]) -> dict[Row, Counted]:
    """The parts of the project that are among the things that a product returns, by row."""
    by_key: dict[Key, list[Thing]] = {}
    for thing in things:
        by_key.setdefault(thing.key, []).append(thing)
    keys = {id: names(id, node) for id, node in declared.nodes.items()}
    seen = {id: each for id in keys if (each := [thing for key in sorted(keys[id]) for thing in by_key.get(key, ())])}
    texts_of = {id: clean("\n".join(text for thing in each for text in texts(thing.content))) for id, each in seen.items()}

    def holds(id: str, *wanted: str) -> bool:
        return id in texts_of and all(clean(text) in texts_of[id] for text in wanted)

    nodes = declared.nodes
    made = {row: counted(seen, (id for id, node in nodes.items() if node["kind"] in kinds)) for row, kinds in OF_A_KIND.items()}
    described = [id for id, node in nodes.items() if node["description"].strip()]
    made[DESCRIPTIONS] = Counted([id for id in described if holds(id, nodes[id]["description"])], described)
    columns = {f"{id}.{name}": (id, name, text) for id, node in nodes.items() for name, text in node["columns"].items() if text.strip()}
    made[COLUMNS] = Counted([column for column, wanted in columns.items() if holds(*wanted)], list(columns))
    named = {text for each in by_key.values() for thing in each for text in texts(thing.owners)}
    owners = {known[0]: known for owner in declared.owners if (known := called(owner))}
    made[OWNERS] = Counted([owner for owner, known in owners.items() if named.intersection(known)], list(owners))
    tables = [id for id, node in nodes.items() if node["table"]]
    made[COUNTS] = counted({id for id in tables if any(has_row_count(thing.content) for thing in seen.get(id, ()))}, tables)
    for row, key in ((RAW, "raw"), (COMPILED, "compiled")):
        models = [id for id, node in nodes.items() if node["raw"] and clean(node["raw"]) != clean(node["compiled"])]
        made[row] = Counted([id for id in models if nodes[id][key].strip() and holds(id, nodes[id][key])], models)
    edges = [
        (parent, child)
        for parent, children in declared.children.items()
        for child in children
        if parent.partition(".")[0] in IN_LINEAGE and child.partition(".")[0] in IN_LINEAGE
    ]
    drawn = [(a, b) for a, b in edges if any(keys[a] & thing.before for thing in seen.get(b, ()))]
    made[EDGES] = Counted([f"{a} > {b}" for a, b in drawn], [f"{a} > {b}" for a, b in edges])
    return made


def names(id: str, node: Mapping[str, Any]) -> set[Key]:
    """The names that a node may have: its own, and for a model's version also the end of its id, as in ``orders.v2`` or ``orders_v2``."""
    last = id.split(".", 2)[2]
    return {Key(node["kind"], name) for name in (node["name"], last, re.sub(r"[^\w-]", "_", last, flags=re.ASCII))}


def called(owner: Mapping[str, Any]) -> list[str]:
    """The email addresses and the name of an owner; dbt allows one address, several or none."""
    email = owner.get("email")
    return [text for text in (*(email if isinstance(email, list) else [email]), owner.get("name")) if text]


def counted(seen: Iterable[str], all_: Iterable[str]) -> Counted:
    """All ids, and those of them that are in ``seen``."""
    known, ids = set(seen), list(all_)
    return Counted([id for id in ids if id in known], ids)


def clean(text: str) -> str:
    """The text with each run of white space replaced by one space."""
    return " ".join(text.split())


def has_row_count(answer: Any) -> bool:
    """Whether an answer has a number of rows: in a field, or an entry with a label, that has `row` in its name."""
    if isinstance(answer, Mapping):
        named = [(str(answer.get("label", "")), answer.get("intValue")), *((str(key), value) for key, value in answer.items())]
        rows = any(re.search(r"(\b|_)rows?(\b|_)", name) and isinstance(value, int) and value >= 0 for name, value in named)
        return rows or any(has_row_count(value) for value in answer.values())
    return isinstance(answer, list | tuple) and any(has_row_count(one) for one in answer)


def pictures(trial: Trial) -> Iterator[Found]:
    """Break a model, run, take pictures, and fix it."""
    folder = trial.subject.folder
    victim = trial.graph.middle(trial.green or frozenset(trial.graph.nodes))
    with trial.edited(victim.path, NO_SQL):
        run = trial.run()
        url = next((match[0] for _, line in run.lines if (match := re.search(r"https?://\S+", line))), "")
        if not url:
            raise StackError("The run with the broken model has no page.", run.text[-500:])
        shown = product(trial.rig, trial.name)
        asked = [
            {**picture._asdict(), "file": str(folder / f"{trial.name}-{picture.what}.png")} for picture in shown.pictures(url, victim.name)
        ]
        sign_in = {"url": shown.url, "fields": [(selector, text.format(password=shown.password)) for selector, text in shown.fields]}
        basic = None if shown.fields else {"username": "admin", "password": shown.password}
        why = shoot(trial.subject.python, {**sign_in, "basic": basic, "pictures": asked})
    files = {str(one["what"]): Path(one["file"]).name for one, reason in zip(asked, why, strict=True) if not reason}
    missing = "; ".join(dict.fromkeys(filter(None, why)))
    yield Found(PICTURES.id, len(files) if files else None, f"of {len(asked)}" if files else "", None, {"files": files}, missing)


def shoot(python: Path, asked: dict[str, Any]) -> list[str]:
    """Have `compare.shots` take pictures; return why each could not be taken, empty for one that was."""
    argv = [str(python), "-I", "-X", "utf8", str(Path(__file__).with_name("shots.py"))]
    try:
        done = subprocess.run(
            argv,
            env=caller.inherited(os.environ),
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PICTURES_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return [f"no picture within {PICTURES_TIMEOUT_S} s"] * len(asked["pictures"])
    if done.returncode:
        return [(done.stderr.strip().splitlines() or ["the browser ended"])[-1]] * len(asked["pictures"])
    why: list[str] = json.loads(done.stdout)
    return why


def drawn(report: Report) -> list[dict[str, Any]]:
    """The pictures, with those of the same kind side by side."""
    files = {
        title: found["parts"]["files"] for name, title in report.titles.items() for found in report.found(PICTURES, name) if found["parts"]
    }
    return [
        {"kind": "shots", "title": title, "shots": [{"name": name, "file": each[what]} for name, each in files.items() if what in each]}
        for what, title in SHOWN.items()
        if any(what in each for each in files.values())
    ]


def sentence(report: Report) -> str:
    """The section's first sentence."""
    return (
        f"Of the project's models, the products' APIs return {report.ranking(MODELS)}; of its tests {report.ranking(TESTS)};"
        f" of the lineage {report.ranking(EDGES)}."
    )


SECTION = Section(
    "seeing",
    "Seeing",
    (
        Scenario("what the API shows", counts, ROWS, 12, "default", once=True),
        Scenario("pictures of the page", pictures, (PICTURES,), 50, "default", once=True),
    ),
    sentence,
    drawn,
)
