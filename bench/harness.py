"""Figures: ratios of alternating measurements, with their spread. Nothing in here knows the stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from switchyard.errors import BadUsage

HEADER = ("WHAT", "MEDIAN", "SPREAD", "TARGET")


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        name: what was measured.
        values: one per round: a ratio, or something in ``unit``.
        target: the highest median that meets the target; None without a target.
        unit: of the values; empty for a ratio.
        seconds: the raw measurements behind a ratio, only for the JSON: they cannot be compared with another machine, or another day.
    """

    name: str
    values: tuple[float, ...]
    target: float | None = None
    unit: str = ""
    seconds: Mapping[str, tuple[float, ...]] | None = None

    @property
    def median(self) -> float:
        """The median of the values."""
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median is within the target; None without one."""
        return None if self.target is None else self.median <= self.target


def timed(action: Callable[[], object]) -> float:
    """The seconds that the action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def interleaved(rounds: int, actions: Mapping[str, Callable[[], float]]) -> dict[str, tuple[float, ...]]:
    """Measure in turn, A B A B, so that anything that slows the machine down for a while slows both.

    Args:
        rounds: how often to run each action.
        actions: by name; each returns its seconds.

    Returns:
        The seconds of each round, by name.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            found[name].append(action())
    return {name: tuple(seconds) for name, seconds in found.items()}


def ratio(name: str, above: Sequence[float], below: Sequence[float], target: float | None = None) -> Figure:
    """The figure ``above / below``, round by round, so that measurements close in time are compared."""
    values = tuple(a / b for a, b in zip(above, below, strict=True))
    return Figure(name, values, target, seconds={"above": tuple(above), "below": tuple(below)})


def row(figure: Figure) -> tuple[str, str, str, str]:
    """The figure's cells under `HEADER`."""
    if figure.unit:
        shown = [f"{value:,.0f} {figure.unit}" if value >= 10 else f"{value:.1f} {figure.unit}" for value in _three(figure)]
    else:
        shown = [f"{value:.2f}" for value in _three(figure)]
    target = "" if figure.target is None else f"{'met' if figure.met else 'MISSED'}, at most {figure.target:g}"
    return figure.name, shown[0], f"{shown[1]} to {shown[2]}", target


def _three(figure: Figure) -> tuple[float, float, float]:
    return figure.median, min(figure.values), max(figure.values)


def as_json(figure: Figure) -> dict[str, Any]:
    """The figure as a JSON object."""
    middle, low, high = (round(value, 4) for value in _three(figure))
    found = {"name": figure.name, "unit": figure.unit or "ratio", "median": middle, "low": low, "high": high}
    found |= {"target": figure.target, "met": figure.met, "values": [round(value, 4) for value in figure.values]}
    if figure.seconds:
        found["seconds"] = {key: [round(value, 3) for value in values] for key, values in figure.seconds.items()}
    return found


def picked(text: str, known: Iterable[str], what: str, flag: str) -> list[str]:
    """The names in ``text``, separated by commas.

    Args:
        text: what was typed.
        known: the possible names.
        what: what the names are names of.
        flag: the command and flag that they were typed after.

    Raises:
        BadUsage: a name is not known.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise BadUsage(f"There is no {what} called {name!r}.", f"There are {', '.join(known)}.", f"{flag} {next(iter(known))}")
    return names
