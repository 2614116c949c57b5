"""Reads a page of `invoke compare`, to check what is in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

LOADING = ("src", "srcset", "href", "xlink:href", "action", "poster", "data")


class Reader(HTMLParser):
    """Collects what the page would load, the text of its tables' cells, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self._inside = False
        self.feed(text)
        self.loaded += [url for url in re.findall(r"url\(\s*['\"]?([^)'\"]+)", text) if not url.startswith(("#", "data:"))]
        self.loaded += re.findall(r"@import[^;]*", text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in LOADING and not (value or "").startswith(("#", "data:")):
                self.loaded.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")
        if tag == "td":
            self._inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "td"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data
