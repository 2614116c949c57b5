"""What is measured, and what a measurement gives. Nothing in here starts anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compare.report import Report
    from compare.trial import Trial


# How much is measured, from the least: `--quick`, without a flag, `--full`.
DEPTHS = ("quick", "default", "full")


@dataclass(frozen=True)
class Row:
    """One row of the page.

    Attributes:
        id: in the JSON.
        title: what a person reads.
        what: how it is measured, a sentence.
        unit: of its values; empty for a count.
        better: ``low`` or ``high``; None where neither is.
    """

    id: str
    title: str
    what: str
    unit: str = ""
    better: str | None = "low"


@dataclass(frozen=True)
class Found:
    """One measurement.

    Attributes:
        row: the id of its row.
        value: in the row's unit; None where there is none.
        verdict: what became of it, a few words; empty where the value is enough.
        good: whether that is as it should be; None without a verdict, and where it is for the reader to judge.
        parts: what the value was made of, for the JSON.
        why: it could not be measured; empty where it was.
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
        title: what a person reads in the progress line.
        measure: does it, and yields what was found.
        rows: what it can find.
        seconds: that it takes by a first guess, for the time that is left.
        depth: the first of `DEPTHS` of which it is a part.
        once: whether it is done in the first round alone, as all is that belongs to ``--full`` and takes many minutes.
    """

    title: str
    measure: Callable[[Trial], Iterator[Found]]
    rows: tuple[Row, ...]
    seconds: float
    depth: str = "quick"
    once: bool = False

    @property
    def single(self) -> bool:
        """Whether it is done in the first round alone."""
        return self.once or self.depth == "full"


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        id: what ``--only`` takes.
        title: what a person reads.
        scenarios: in the order in which they are done.
        sentence: what the figures say, in one sentence.
        pictures: besides those of all rows; see `compare.page`.
        code: files that are shown with it: ``title``, ``lead``, and ``columns`` of a ``title`` and ``files`` with ``path`` and ``text``.
    """

    id: str
    title: str
    scenarios: tuple[Scenario, ...]
    sentence: Callable[[Report], str]
    pictures: Callable[[Report], list[dict[str, Any]]] = lambda _: []
    code: Callable[[Report], dict[str, Any]] | None = None
