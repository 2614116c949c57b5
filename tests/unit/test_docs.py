"""The documents: generated pages are up to date, links work, and the English is plain."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
import yaml

from compare.main import SECTIONS
from compare.pages import pages
from compare.report import Report
from switchyard import orchestrators

from ..stacks import ROOT, ours

FOLDERS = (".", "certs", "dbt_project", "docs", "docs/adr", "docs/comparison/*", "docs/upstream")
PAGES = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md"))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.mark.parametrize(("page", "text"), [pytest.param(*one, id=one[0].name) for one in pages().items()])
def test_a_generated_page_is_up_to_date(page, text) -> None:
    assert page.read_text(encoding="utf-8") == text, "type: python -m compare.pages"


@pytest.mark.parametrize("figures", sorted(ROOT.glob("docs/comparison/*/report.json")), ids=lambda figures: figures.parent.name)
def test_the_page_of_a_report_has_the_same_sentences_and_cells_as_its_readme(figures) -> None:
    html = figures.with_name("report.html").read_text(encoding="utf-8")
    text = " ".join(unescape(re.sub("<[^>]*>", "", html)).split())
    view = Report.read(figures).view(SECTIONS)
    cells = [one for section in view["sections"] for row in section["rows"] for one in row["cells"]]
    shown = [view["glance"], *(section["sentence"] for section in view["sections"]), *(value for _, value in view["facts"])]
    shown += [part for one in cells for part in (one["value"], one["spread"], one["why"], *(each["text"] for each in one["verdicts"]))]
    missing = {" ".join(part.replace("`", "").split()) for part in shown}
    assert [part for part in missing if part not in text] == [], f"type: invoke compare --report {figures.relative_to(ROOT)}"


def test_every_key_of_an_orchestrator_is_described() -> None:
    page, native = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("orchestrator.md", "native.md"))
    for orchestrator in orchestrators.load_all(ROOT).values():
        block = yaml.safe_load(orchestrator.file.read_text(encoding="utf-8"))["x-orchestrator"]
        keys = [*block, *block.get("login", {})]
        assert [key for key in keys if f"`{key}`" not in page and f"`{key}: " not in page] == []
        beside = yaml.safe_load((ROOT / "docker" / orchestrator.name / orchestrators.NATIVE).read_text(encoding="utf-8"))
        assert [key for key in beside if f"\n{key}: " not in native] == []


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_work(page) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize(("page", "most"), [("README.md", 150), ("CONTRIBUTING.md", 45)])
def test_the_first_pages_are_short(page, most) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= most


def test_the_development_container_runs_the_first_command() -> None:
    command = re.search(r"<!-- first command -->\n```sh\n(.*)\n", (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    lines = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8").splitlines()
    content = json.loads("\n".join(line for line in lines if not line.startswith("//")))
    assert content["postCreateCommand"] == command


# Programs print, show, report and fail.
NOT_PLAIN = re.compile(
    r"\b(tells?|told|names it|stands? in|goes on|going on|anew|of yours|as ever|in the place of|hears?|speaks?|believes?"
    r"|in vain|has not are|says|saying|whoever|for want of|that is none|names none|is gone|for ever|nobody's|the person's)\b",
    re.I,
)
PUBLISHED = "docs/comparison/"  # reports have the words of the day when they were made
TEXTS = {".md", ".py", ".sql", ".sh", ".yaml", ".yml", ".toml", ".txt", ".in", ".cfg", ".html", ".example", ""}


def test_texts_are_in_plain_english() -> None:
    found = []
    for name in ours():
        path = ROOT / name
        if path.suffix not in TEXTS or not path.is_file() or name.startswith(PUBLISHED) or path == Path(__file__):
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if NOT_PLAIN.search(line.replace("_", " "))]
    assert found == []
