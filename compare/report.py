"""The figures of a comparison, as JSON, and what can be concluded from them. Nothing in here starts anything."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from compare.model import Found, Row, Scenario, Section
from switchyard.errors import BadUsage

SCHEMA = 1
# The least number of measurements of each orchestrator for which an order is claimed. If all three are equally fast, one of them is by
# chance ahead of both others in all measurements in 1 of 5 cases with 2 measurements, and in 1 of 28 with 3: 3 · (n!)(2n)! / (3n)!.
LEAST = 3


class Summary(NamedTuple):
    """All measurements of one row and one orchestrator.

    Attributes:
        times: how often it was measured.
        values: all values.
        verdicts: each verdict, whether it is good (None: neither good nor bad), and how often it occurred.
        why: why measurements failed, each reason once.
    """

    times: int
    values: tuple[float, ...]
    verdicts: tuple[tuple[str, bool | None, int], ...]
    why: tuple[str, ...]

    @property
    def median(self) -> float:
        """The median of the values."""
        return median(self.values)

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(self.values)


class Report:
    """The figures and facts of a comparison.

    Args:
        content: the JSON's content.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a file of `write`.

        Raises:
            BadUsage: it is not such a file, or has another version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            schema = content["schema"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadUsage(
                f"{path} is not a report of invoke compare.", str(error), "invoke compare --report reports/…/report.json"
            ) from None
        if schema != SCHEMA:
            raise BadUsage(f"{path} has the schema {schema}, and this version reads {SCHEMA}.", "", "invoke compare")
        return cls(content)

    def write(self, path: Path) -> None:
        """Write the JSON atomically."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        new.replace(path)

    @property
    def titles(self) -> dict[str, str]:
        """The title of each orchestrator, by name."""
        return {name: facts["title"] for name, facts in self.content["orchestrators"].items()}

    def declare(self, section: Section, scenarios: Iterable[Scenario]) -> None:
        """Add empty rows for some scenarios of a section."""
        for row in (row for scenario in scenarios for row in scenario.rows):
            self.content["rows"][row.id] = {"section": section.id, **asdict(row), "cells": {name: [] for name in self.titles}}

    def add(self, found: Found, name: str, number: int) -> None:
        """Add a measurement of the round ``number``, unless its row was not declared."""
        if found.row in self.content["rows"]:
            kept = {"round": number, **{key: value for key, value in asdict(found).items() if key != "row"}}
            self.content["rows"][found.row]["cells"][name].append(kept)

    def found(self, row: Row, name: str) -> list[dict[str, Any]]:
        """Every measurement of a row."""
        found: list[dict[str, Any]] = self.content["rows"].get(row.id, {}).get("cells", {}).get(name, [])
        return found

    def summary(self, row: str, name: str) -> Summary:
        """The summary of these measurements."""
        found = self.content["rows"].get(row, {}).get("cells", {}).get(name, [])
        values = tuple(one["value"] for one in found if one["value"] is not None)
        verdicts = Counter((one["verdict"], one["good"]) for one in found if one["verdict"])
        why = dict.fromkeys(one["why"] for one in found if one["why"])
        times = sum(not one["why"] for one in found)
        return Summary(times, values, tuple((text, good, count) for (text, good), count in verdicts.items()), tuple(why))

    def measured(self, row: str) -> dict[str, Summary]:
        """The summaries of the orchestrators that have values, the lowest median first."""
        found = {name: self.summary(row, name) for name in self.titles}
        return dict(sorted(((name, one) for name, one in found.items() if one.values), key=lambda item: item[1].median))

    def best(self, row: str) -> str | None:
        """The orchestrator whose values are all better than every value of each other one.

        None if spreads overlap, an orchestrator was measured fewer than `LEAST` times (an exact row: not at all), a measurement failed,
        there is only one orchestrator, the row has no better, or a verdict of the best is bad.
        """
        kind, found = self.content["rows"][row], self.measured(row)
        better, least = kind["better"], 1 if kind.get("exact") else LEAST
        if better is None or len(found) < 2 or any(len(one.values) < least for one in found.values()):
            return None
        name = next(iter(found)) if better == "low" else next(reversed(found))
        first, others = found[name], [one for other, one in found.items() if other != name]
        apart = all(first.high < one.low if better == "low" else first.low > one.high for one in others)
        complete = not any(one.why for one in found.values())
        return name if apart and complete and all(good is not False for _, good, _ in first.verdicts) else None

    def ranking(self, row: Row, names: Collection[str] | None = None) -> str:
        """The medians of a row in words, the lowest first, with those that are missing or bad, and those without a claimed order.

        Args:
            row: the row.
            names: some of the orchestrators; None for all.
        """
        titles = {name: title for name, title in self.titles.items() if names is None or name in names}
        found = {name: one for name, one in self.measured(row.id).items() if name in titles}
        shown = {name: text(one.median, row.unit) for name, one in found.items()}
        if not found:
            return "(not measured)"
        notes = []
        if missing := [title for name, title in titles.items() if name not in found]:
            notes.append(f"not measured with {listed(missing)}")
        if bad := [self.titles[name] for name, one in found.items() if any(good is False for _, good, _ in one.verdicts)]:
            notes.append(f"not as it should be with {listed(bad)}")
        if len(found) == len(titles) > 1 and len(set(shown.values())) == 1:
            sentence = f"{next(iter(shown.values()))} with each"
        else:
            sentence = listed(f"{value} with {self.titles[name]}" for name, value in shown.items())
            if row.unit and not row.exact:  # a count is the same each time
                notes += self._unclaimed(found)
        return f"{sentence} ({'; '.join(notes)})" if notes else sentence

    def _unclaimed(self, found: dict[str, Summary]) -> list[str]:
        """Why no order is claimed, and between which orchestrators."""
        if len(found) > 1 and (fewest := min(len(one.values) for one in found.values())) < LEAST:
            return [f"measured {('once', 'twice')[fewest - 1]}, so no order is claimed"]
        overlapping = [
            f"{self.titles[a]} and {self.titles[b]}" for (a, one), (b, other) in combinations(found.items(), 2) if one.high >= other.low
        ]
        return [f"no order is claimed between {', nor between '.join(overlapping)}: their spreads overlap"] if overlapping else []

    def judged(self, row: Row) -> tuple[int, int]:
        """How many orchestrators have only good verdicts, and how many have any verdict."""
        found = [one for name in self.titles if (one := self.summary(row.id, name)).verdicts]
        return sum(all(good for _, good, _ in one.verdicts) for one in found), len(found)

    def typical(self, row: Row, name: str) -> dict[str, Any] | None:
        """The median measurement; None without any."""
        found = sorted((one for one in self.found(row, name) if one["value"] is not None), key=lambda one: one["value"])
        return found[(len(found) - 1) // 2] if found else None

    def beside(self, row: Row, name: str, other: dict[str, Any] | None) -> dict[str, Any] | None:
        """The measurement of ``row`` in the same round as another one."""
        return next((one for one in self.found(row, name) if other and one["round"] == other["round"] and one["value"] is not None), None)

    def view(self, sections: Iterable[Section]) -> dict[str, Any]:
        """Everything that the page shows, for `compare.page`."""
        content = self.content
        return {
            "title": f"{listed(self.titles.values())} on the dbt project {content['project']['name']}",
            "facts": [*self._facts(), *self._left_out(sections)],
            "names": list(self.titles.values()),
            "glance": self._glance(),
            "complete": content["complete"],
            "settings": [
                {"title": facts["title"], "versions": facts["versions"], "rows": sorted(facts["settings"].items())}
                for facts in content["orchestrators"].values()
            ],
            "sections": [self._section(section) for section in sections if self._rows(section)],
        }

    def _glance(self) -> str:
        """The first sentence of the table of all rows, which counts rows and claims no more."""
        rows = [id for id, row in self.content["rows"].items() if any(row["cells"].values())]
        found = {id: [self.summary(id, name) for name in self.titles] for id in rows}
        whole = sum(all(one.times and not one.why for one in each) for each in found.values())
        best = sum(self.best(id) is not None for id in rows)
        return f"{whole} of {len(rows)} rows were measured with {listed(self.titles.values())}; rows with a best value: {best}."

    def _facts(self) -> list[tuple[str, str]]:
        content, machine, project = self.content, self.content["machine"], self.content["project"]
        images = ", ".join(content["base_images"]) or "none: without Docker"
        if "switchyard-standin/" in images:
            images += "; stand-ins made for tests, with other sizes than the vendors' images"
        packages = {
            package: version
            for name, facts in content["orchestrators"].items()
            for package, version in facts["versions"].items()
            if re.search(rf"dbt|cosmos|(^|-){name}$", package)  # the product, and its packages for dbt
        }
        versions = {**packages, **content["versions"]}
        changed = "; measured without its query-comment" if project.get("query_comment") else ""
        return [
            (
                "Made",
                f"{content['time']}, in {content['seconds'] / 60:.0f} minutes, {content['rounds']} round{'s' * (content['rounds'] > 1)}",
            ),
            ("Project", f"{project['name']}: {project['counts'] or 'nodes not counted'}, {project['threads']} threads{changed}"),
            ("Machine", f"{machine['system']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB of memory"),
            ("Runtime", content["runtime"]),
            *([("Limits", content["limits"])] if "limits" in content else []),  # older reports have none
            ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "not known"),
            ("Base images", images),
            ("Commit", content["commit"]),
        ]

    def _left_out(self, sections: Iterable[Section]) -> list[tuple[str, str]]:
        """The rows that this comparison left out, if any."""
        rows = (row for section in sections for scenario in section.scenarios for row in scenario.rows)
        missing = [row.title for row in rows if row.id not in self.content["rows"]]
        return [("Left out", f"{', '.join(missing)} (`invoke compare --full` has all rows)")] if missing else []

    def _rows(self, section: Section) -> dict[str, dict[str, Any]]:
        """The rows of a section that have any measurement, by id."""
        own = {id: row for id, row in self.content["rows"].items() if row["section"] == section.id}
        return {id: row for id, row in own.items() if any(row["cells"].values())}

    def _section(self, section: Section) -> dict[str, Any]:
        rows = self._rows(section)
        measured = {id: row for id, row in rows.items() if self.measured(id)}
        dots = [
            {
                "title": row["title"],
                "unit": row["unit"],
                "runs": {title: values for name, title in self.titles.items() if (values := self.summary(id, name).values)},
            }
            for id, row in measured.items()
            if row["unit"]
        ]
        return {
            "id": section.id,
            "title": section.title,
            "sentence": section.sentence(self) if measured else "Nothing could be measured here.",
            "rows": [self._row(id, row) for id, row in rows.items()],
            "pictures": [
                *section.pictures(self),
                *([{"kind": "dots", "title": "Every measurement that has a unit", "rows": dots}] if dots else []),
            ],
            "code": section.code(self) if section.code else None,
        }

    def _row(self, id: str, row: dict[str, Any]) -> dict[str, Any]:
        best = self.best(id)
        return {
            "title": row["title"],
            "what": row["what"],
            "cells": [self._cell(self.summary(id, name), row["unit"], name == best) for name in self.titles],
        }

    def _cell(self, one: Summary, unit: str, best: bool) -> dict[str, Any]:
        values, count = one.values, len(one.values)
        spread = f"{plain(one.low, unit)} to {plain(one.high, unit)}, n = {count}" if count > 1 and one.low != one.high else f"n = {count}"
        verdicts = [
            {"text": text + (f" ({times} of {one.times})" if times < one.times else ""), "good": good} for text, good, times in one.verdicts
        ]
        return {
            "value": text(one.median, unit) if values else "",
            "spread": spread if values else "",
            "best": best,
            "verdicts": verdicts,
            "why": "; ".join(one.why) or ("" if values or verdicts else "the comparison was ended before"),
        }


def number(value: float) -> str:
    """A figure with a sensible number of digits."""
    if float(value).is_integer() and abs(value) >= 3:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def text(value: float, unit: str) -> str:
    """A figure with its unit; a count has none."""
    return f"{plain(value, unit)} {unit}".rstrip()


def plain(value: float, unit: str) -> str:
    """A figure without its unit; a count has no decimals."""
    return number(value) if unit else f"{value:,.0f}"


def listed(words: Iterable[str]) -> str:
    """``a``, ``a and b``, or ``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
