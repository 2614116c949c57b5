"""``page.py FILE FOLDER``: make one HTML file from the JSON on standard input, which is that of `compare.report.Report.view`.

FOLDER has the screenshots that the JSON refers to.

It runs in a separate environment, with the packages in compare/requirements.in, and so imports nothing from this project.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from itertools import chain, groupby
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
import matplotlib as mpl
import pygments.lexers
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image
from pygments.token import Token
from pygments.util import ClassNotFound

INK = "#010203"  # a placeholder in the pictures for the page's text colour
# Okabe and Ito's colours, which people with any kind of colour blindness can distinguish.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999999")
DOT = "#d55e00"
KINDS = ("model", "test", "seed", "snapshot", "unit_test")
WIDTH = 4.8  # inches: as wide as a phone, so that letters are as large as the text around

mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "compare",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
    }
)


def dots(spec: dict[str, Any]) -> tuple[Figure, str]:
    """A dot per measurement, and a line at the median; each row has its own axis, which includes zero."""
    rows = spec["rows"]
    figure = Figure(figsize=(WIDTH, sum(0.75 + 0.24 * len(row["runs"]) for row in rows)), layout="constrained")
    ratios = [0.75 + 0.24 * len(row["runs"]) for row in rows]
    alt_text = []
    for axes, row in zip(figure.subplots(len(rows), squeeze=False, height_ratios=ratios)[:, 0], rows):
        for place, values in enumerate(row["runs"].values()):
            axes.plot([median(values)] * 2, [place - 0.3, place + 0.3], color=INK, linewidth=1)
            axes.plot(values, [place] * len(values), "o", color=DOT, alpha=0.8, markersize=5, linestyle="none")
        axes.set_yticks(range(len(row["runs"])), row["runs"])
        axes.set_ylim(len(row["runs"]) - 0.5, -0.5)
        known = list(chain.from_iterable(row["runs"].values()))
        axes.set_xlim(1.05 * min(0, *known), 1.05 * max(0, *known) or 1)
        axes.set_title(row["title"], loc="left", fontsize=10)
        axes.set_xlabel(row["unit"])
        alt_text.append(f"{row['title']} in {row['unit']}: " + "; ".join(f"{name} {shown(values)}" for name, values in row["runs"].items()))
    return figure, ". ".join(alt_text)


def bars(spec: dict[str, Any]) -> tuple[Figure, str]:
    """A stacked bar per orchestrator; not every orchestrator has all parts."""
    runs, parts, unit = spec["runs"], spec["parts"], spec["unit"]
    columns = 3 if max(map(len, parts)) < 15 else 1
    figure = Figure(figsize=(WIDTH, 1 + 0.4 * len(runs) + 0.25 * -(-len(parts) // columns)), layout="constrained")
    axes = figure.subplots()
    at = [0.0] * len(runs)
    for colour, part in zip(COLOURS[::-1], parts):
        widths = [one.get(part, 0.0) for one in runs.values()]
        axes.barh(range(len(runs)), widths, left=at, color=colour, edgecolor=INK, linewidth=0.5, label=part, height=0.6)
        at = [a + width for a, width in zip(at, widths)]
    axes.set_yticks(range(len(runs)), runs)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlabel(spec["axis"])
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    alt_text = (f"{name}: " + ", ".join(f"{part} {value:.3g} {unit}" for part, value in one.items()) for name, one in runs.items())
    return figure, "; ".join(alt_text)


def gantt(spec: dict[str, Any]) -> tuple[Figure, str]:
    """Nodes over time, in as few lines as there were nodes at the same time; all orchestrators share one time axis."""
    runs = {name: packed(nodes) for name, nodes in spec["runs"].items()}
    heights = [0.6 + 0.16 * (1 + max(line for *_, line in nodes)) for nodes in runs.values()]
    figure = Figure(figsize=(WIDTH, 1.1 + sum(heights)), layout="constrained")
    subplots = figure.subplots(len(runs), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    seen: dict[str, Any] = {}
    for axes, (name, nodes) in zip(subplots, runs.items()):
        for node, began, ended, line in nodes:
            kind = node.split(".")[0]
            colour = COLOURS[KINDS.index(kind)] if kind in KINDS else COLOURS[-1]
            bar = axes.barh(line, max(ended - began, 0.02), left=began, color=colour, edgecolor=INK, linewidth=0.3, height=0.8)
            seen.setdefault(kind, bar)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_yticks([])
        axes.set_ylabel("at once")
        axes.set_ylim(max(line for *_, line in nodes) + 0.6, -0.6)
    subplots[-1].set_xlim(left=0)
    subplots[-1].set_xlabel("seconds since invoke run was typed")
    figure.legend(seen.values(), [kind.replace("_", " ") for kind in seen], loc="outside lower center", ncols=3, frameon=False)
    alt_text = (
        f"{name}: {len(nodes)} nodes from {min(began for _, began, *_ in nodes):.1f} s to {max(ended for *_, ended, _ in nodes):.1f} s"
        for name, nodes in runs.items()
    )
    return figure, "; ".join(alt_text)


def lines(spec: dict[str, Any]) -> tuple[Figure, str]:
    """A line per orchestrator through its points, each with a different marker."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    for colour, marker, (name, points) in zip(COLOURS, "os^Dv*", spec["lines"].items()):
        axes.plot(*zip(*points), color=colour, marker=marker, markersize=5, label=name)
    axes.axhline(0, color=INK, linewidth=0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(spec["x"])
    axes.set_ylabel(spec["y"])
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    alt_text = (f"{name}: " + ", ".join(f"{y:.1f} at {x:g}" for x, y in points) for name, points in spec["lines"].items())
    return figure, f"{spec['y']} by {spec['x']}. " + "; ".join(alt_text)


def packed(nodes: list[tuple[str, float, float]]) -> list[tuple[str, float, float, int]]:
    """Each node with the first line that is free when it starts."""
    free: list[float] = []
    found = []
    for node, began, ended in nodes:
        line = next((number for number, at in enumerate(free) if at <= began), len(free))
        free[line:] = [ended, *free[line + 1 :]]
        found.append((node, began, ended, line))
    return found


def shown(values: list[float]) -> str:
    """Values for the text alternative of a picture."""
    return ", ".join(f"{value:.3g}" for value in values)


DRAWN = {"dots": dots, "bars": bars, "gantt": gantt, "lines": lines}


def picture(spec: dict[str, Any], key: str) -> Markup:
    """An SVG element for the page, with a text alternative, unique ids, and the page's text colour."""
    figure, alt_text = DRAWN[spec["kind"]](spec)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S).replace(INK, "currentColor")
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{key}-", svg)
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    label = f'<title id="{key}-title">{escape(spec["title"])}</title><desc id="{key}-desc">{escape(alt_text)}</desc>'
    return Markup(f'{head} role="img" aria-labelledby="{key}-title {key}-desc">{label}{rest}')


def shots(spec: dict[str, Any], folder: Path) -> list[dict[str, str]]:
    """The screenshots of pages, each with its orchestrator, a text alternative and its bytes.

    A page consists of areas in one colour, and letters. Lossless with 256 colours, it needs a third of a JPEG, whose letters are blurred.
    """
    found = []
    for one in spec["shots"]:
        path = folder / Path(one["file"]).name
        alt_text = f"{spec['title']}, on the page of {one['name']}"
        if path.exists():
            buffer = io.BytesIO()
            with Image.open(path) as image:
                image.convert("RGB").quantize(256).save(buffer, "WEBP", lossless=True, method=6)
            data = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
            found.append({"name": one["name"], "alt_text": alt_text, "data": data})
        else:
            found.append({"name": one["name"], "alt_text": alt_text, "data": "", "why": f"{path.name} is not in the folder of the figures"})
    return found


def plain(text: str) -> Markup:
    """Text with the parts in backquotes as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


# The tokens that are coloured in code, and their class in page.html. The values in an f-string do not have its colour.
COLOURED = (
    (Token.Comment, "comment"),
    (Token.String.Interpol, ""),
    (Token.String, "string"),
    (Token.Number, "number"),
    (Token.Keyword, "keyword"),
    (Token.Operator.Word, "keyword"),
    (Token.Name.Tag, "name"),
    (Token.Name.Decorator, "name"),
    (Token.Name.Function, "name"),
    (Token.Name.Class, "name"),
)


def coloured(text: str, path: str) -> Markup:
    """The text of a file, with the colours of its language."""
    try:
        lexer = pygments.lexers.get_lexer_for_filename(path)
    except ClassNotFound:
        lexer = pygments.lexers.TextLexer()
    parts = []
    for kind, words in groupby(lexer.get_tokens(text), lambda token: next((name for of, name in COLOURED if token[0] in of), "")):
        content = escape("".join(word for _, word in words))
        parts.append(Markup('<span class="{}">{}</span>').format(kind, content) if kind else content)
    return Markup("").join(parts)


def page(view: dict[str, Any], folder: Path) -> str:
    """The HTML, with the pictures in ``folder``."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(autoescape=True, loader=loader, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = plain
    environment.filters["coloured"] = coloured
    for section in view["sections"]:
        section["shots"] = [{**spec, "shots": shots(spec, folder)} for spec in section["pictures"] if spec["kind"] == "shots"]
        section["pictures"] = [spec for spec in section["pictures"] if spec["kind"] != "shots"]
        section["drawn"] = [picture(spec, f"{section['id']}-{number}") for number, spec in enumerate(section["pictures"])]
    made: str = environment.get_template("page.html").render(view)
    return made


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(json.load(sys.stdin), Path(sys.argv[2])), encoding="utf-8")
