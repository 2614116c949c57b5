"""The rows, scenarios and sections of a comparison, and their measurements. Nothing in here starts anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare.report import Report
    from compare.trial import Trial


# How much is measured, least first: `--quick`, without a flag, `--full`.
DEPTHS = ("quick", "default", "full")


@dataclass(frozen=True)
class Row:
    """One row of the page.

    Attributes:
        id: in the JSON.
        title: its title for people.
        what: how it is measured, in a few sentences.
        unit: of its values; empty for a count.
        better: ``low`` or ``high``; None if neither is.
        exact: whether the value is counted, and the same each time, so that one measurement is enough for a best one.
    """

    id: str
    title: str
    what: str
    unit: str = ""
    better: str | None = "low"
    exact: bool = False


@dataclass(frozen=True)
class Found:
    """One measurement.

    Attributes:
        row: the id of its row.
        value: in the row's unit; None if there is none.
        verdict: the outcome in a few words; empty if the value is enough.
        good: whether the verdict is good; None without a verdict, and if the reader is to judge.
        parts: what the value was calculated from, for the JSON.
        why: why it could not be measured; empty if it was.
    """

    row: str
    value: float | None = None
    verdict: str = ""
    good: bool | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Scenario:
    """Something that is done with one orchestrator, which is up.

    Attributes:
        title: its title in the progress line.
        measure: does it, and yields the measurements.
        rows: the rows that it can measure.
        seconds: an estimate of its duration, for the time left.
        depth: the first of `DEPTHS` that includes it.
        once: whether it is done only in the first round unless ``--rounds`` is typed, as everything in ``--full``, which takes long.
    """

    title: str
    measure: Callable[[Trial], Iterator[Found]]
    rows: tuple[Row, ...]
    seconds: float
    depth: str = "quick"
    once: bool = False

    @property
    def single(self) -> bool:
        """Whether it is done only in the first round unless ``--rounds`` is typed."""
        return self.once or self.depth == "full"


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        id: its name for ``--only``.
        title: its title for people.
        scenarios: in the order in which they are done.
        sentence: summarizes the figures in one sentence.
        pictures: in addition to those of all rows; see `compare.page`.
        code: files to show in the section: ``title``, ``lead``, and ``columns``, each with a ``title`` and ``files`` (``path``, ``text``).
    """

    id: str
    title: str
    scenarios: tuple[Scenario, ...]
    sentence: Callable[[Report], str]
    pictures: Callable[[Report], list[dict[str, Any]]] = lambda _: []
    code: Callable[[Report], dict[str, Any]] | None = None
