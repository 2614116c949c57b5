"""``shots.py``: take pictures of pages, as the JSON on standard input asks, and print what became of each as JSON.

It runs in the environment of `compare.page`, which has playwright, and so imports nothing of this project.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

from playwright.sync_api import Browser, Error, Page, Playwright, TimeoutError, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "microsoft-edge-stable", "msedge")
CHANNELS = ("chrome", "msedge")  # where these are installed outside of PATH, as on macOS and Windows
SIZE = {"width": 1280, "height": 800}
PAGE_TIMEOUT_S = 120  # seconds until a page shows what it is to show
MISSING = "no Chromium, Chrome or Edge on this machine"


def browser(playwright: Playwright) -> Browser | None:
    """The first browser of this machine that starts; None where there is none. None is downloaded."""
    found = [{"executable_path": path} for path in map(shutil.which, PROGRAMS) if path]
    for options in [*found, *({"channel": channel} for channel in CHANNELS)]:
        try:
            return playwright.chromium.launch(**options)
        except Error:
            continue
    return None


def sign_in(page: Page, url: str, fields: list[list[str]]) -> None:
    """Fill in a sign-in page, and wait until it has gone."""
    page.goto(url)
    for selector, text in fields:
        page.locator(selector).first.fill(text)
    page.locator(fields[-1][0]).first.press("Enter")
    page.locator(fields[-1][0]).first.wait_for(state="detached")


def take(page: Page, asked: dict[str, Any]) -> None:
    """Take one picture, when the page shows what it is to show, and does not change any more."""
    page.goto(asked["url"])
    for step, selector in asked["steps"]:
        if step == "press":
            page.keyboard.press(selector)
            continue
        found = page.locator(selector).filter(visible=True).first
        if step == "click":
            found.click()
        else:
            found.wait_for()
    before, deadline = b"", time.monotonic() + PAGE_TIMEOUT_S
    while (now := page.screenshot(animations="disabled")) != before and time.monotonic() < deadline:
        before = now
        page.wait_for_timeout(1000)  # between two looks
    with open(asked["file"], "wb") as file:
        file.write(now)


def main(asked: dict[str, Any]) -> list[str]:
    """Why each picture could not be taken; empty for one that was."""
    with sync_playwright() as playwright:
        started = browser(playwright)
        if started is None:
            return [MISSING] * len(asked["pictures"])
        context = started.new_context(viewport=SIZE, http_credentials=asked["basic"], color_scheme="light", reduced_motion="reduce")
        page = context.new_page()
        page.set_default_timeout(PAGE_TIMEOUT_S * 1000)
        try:
            if asked["fields"]:
                sign_in(page, asked["url"], asked["fields"])
        except Error as error:  # of which the first line alone has nothing that was typed
            return [f"sign-in: {error.message.splitlines()[0]}"] * len(asked["pictures"])
        why = []
        for picture in asked["pictures"]:
            try:
                take(page, picture)
                why.append("")
            except TimeoutError:
                why.append(f"the page has not shown it within {PAGE_TIMEOUT_S} s")
            except Error as error:
                why.append(error.message.splitlines()[0])
        started.close()
        return why


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
