"""What tests of the page in a browser share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 600.0
# Of a selector's images: whether each is loaded.
LOADED = "[...document.querySelectorAll('{}')].map(one => one.complete && one.naturalWidth)"


def until(look: Callable[[], Any]) -> Any:
    """What `look` gives, once it is true. (The page's policy forbids waiting inside it.)"""
    end = time.monotonic() + PATIENCE_S
    while not (value := look()):
        assert time.monotonic() < end, "the page never came so far"
        time.sleep(0.02)
    return value


@contextmanager
def served(uri: str, *words: str) -> Iterator[str]:
    """The address of `rsicd-embed serve` on a port that is free."""
    command = [sys.executable, "-c", "from rsicd_embed.cli import main; main()"]
    command += ["serve", "--store", uri, "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("serving ")
        yield line.split()[-1]
        server.terminate()
        assert server.wait(PATIENCE_S) == 0


@contextmanager
def opened(browser: Any, address: str, query: str = "", **options: Any) -> Iterator[Any]:
    """The page; at the end, nothing may have been complained of or requested from elsewhere."""
    page = browser.new_page(**options)
    page.set_default_timeout(1000 * PATIENCE_S)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    own = (address, "blob:", "data:")
    page.on("request", lambda one: one.url.startswith(own) or complaints.append(one.url))
    page.goto(address + query)
    yield page
    page.close()
    assert complaints == [], complaints


def results(page: Any) -> list[str]:
    """The ids of the results."""
    return [str(name) for name in page.locator(".card .name").all_inner_texts()]


def search(page: Any, text: str) -> str:
    """Searches by words; the line that says how many results there are."""
    page.fill("#text", text)
    page.keyboard.press("Enter")
    return searched(page, f"“{text}”")


def searched(page: Any, words: str) -> str:
    """The line that says how many results there are, once it has these words."""

    def look() -> str:
        text = str(page.locator("#status").inner_text())
        return text if words in text else ""

    return str(until(look))
