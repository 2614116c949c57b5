"""``shots.py``: take the screenshots in the JSON on standard input, and print the outcome of each as JSON.

It runs in the environment of `compare.page`, which has playwright, and so imports nothing from this project.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

from playwright.sync_api import Browser, Error, Page, Playwright, TimeoutError, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "microsoft-edge-stable", "msedge")
CHANNELS = ("chrome", "msedge")  # for browsers that are installed outside of PATH, as on macOS and Windows
SIZE = {"width": 1280, "height": 800}
PAGE_TIMEOUT_S = 120  # seconds until a page shows what it should
MISSING = "no Chromium, Chrome or Edge on this machine"


def browser(playwright: Playwright) -> Browser | None:
    """The first browser on this machine that starts, or None. No browser is downloaded."""
    found = [{"executable_path": path} for path in map(shutil.which, PROGRAMS) if path]
    for options in [*found, *({"channel": channel} for channel in CHANNELS)]:
        try:
            return playwright.chromium.launch(**options)
        except Error:
            continue
    return None


def sign_in(page: Page, url: str, fields: list[list[str]]) -> None:
    """Fill in a sign-in page, and wait until it disappears."""
    page.goto(url)
    for selector, text in fields:
        page.locator(selector).first.fill(text)
    page.locator(fields[-1][0]).first.press("Enter")
    page.locator(fields[-1][0]).first.wait_for(state="detached")


def take(page: Page, asked: dict[str, Any]) -> None:
    """Take one picture, once the page shows what it should and no longer changes."""
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
        page.wait_for_timeout(1000)  # between two checks
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
        except Error as error:  # only its first line: the others can contain the password
            return [f"sign-in: {error.message.splitlines()[0]}"] * len(asked["pictures"])
        why = []
        for picture in asked["pictures"]:
            try:
                take(page, picture)
                why.append("")
            except TimeoutError:
                why.append(f"the page did not show it within {PAGE_TIMEOUT_S} s")
            except Error as error:
                why.append(error.message.splitlines()[0])
        started.close()
        return why


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
