"""``opened_page.py SHOTS URL``: open a page as on a phone, a tablet and a desk, in the browser that `compare.shots` (SHOTS) finds.

Prints, as JSON, what the page reports and requests and where it is too wide, an empty list if all is well; ``null`` without a browser.

It runs in the environment of `compare.page`, which has playwright, and so imports nothing from this project.
"""

from __future__ import annotations

import json
import runpy
import sys

from playwright.sync_api import sync_playwright

WIDTHS = (400, 900, 1600)  # pixels
OPEN = "for (const one of document.querySelectorAll('details')) one.open = true"


def main(shots: str, url: str) -> list[str] | None:
    """What is wrong with the page; None if there is no browser."""
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = runpy.run_path(shots)["browser"](playwright)
        if browser is None:
            return None
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda request: wrong.append(request.url) if request.url[:5] != "data:" and request.url != url else None)
            page.goto(url)
            page.evaluate(OPEN)
            needed = page.evaluate("document.documentElement.scrollWidth")
            if needed > width:
                wrong.append(f"{needed} pixels wide on a screen of {width}")
        browser.close()
    return wrong


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
