"""A small WebDriver client over Debian's Chromium, for tests that look at a page as a person does."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

WAIT_S = 15.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver hands out elements (W3C WebDriver, section 11)."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1200,800",
)


class Browser:
    """One window. Selectors are CSS; everything waits for what it needs, at most WAIT_S."""

    def __init__(self, http: httpx2.Client, session: str) -> None:
        self._http = http
        self._base = f"/session/{session}"

    def open(self, url: str) -> None:
        """A fresh page; complaints about the one before are dropped."""
        self.complaints()
        self._call("POST", "url", {"url": url})

    def script(self, code: str) -> Any:
        """What a script in the page returns."""
        return self._call("POST", "execute/sync", {"script": code, "args": []})

    def text(self, selector: str) -> str:
        """The visible text of the first match."""
        return str(self._call("GET", f"element/{self._find(selector)}/text"))

    def click(self, selector: str) -> None:
        """Clicks the first match; again where the page drew it anew in between."""
        for left in reversed(range(5)):
            try:
                self._call("POST", f"element/{self._find(selector)}/click", {})
                return
            except AssertionError as error:
                if not left or "stale element" not in str(error):
                    raise

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"element/{self._find(selector)}/value", {"text": text})

    def choose(self, selector: str, value: str) -> None:
        """Picks an option of a select by its value."""
        self.script(
            f"const s = document.querySelector({json.dumps(selector)}); s.value = {json.dumps(value)}; "
            "s.dispatchEvent(new Event('change', {bubbles: true}));"
        )

    def activate(self, selector: str) -> None:
        """A click on something that WebDriver cannot aim at, such as a part of a picture."""
        self.script(
            f"document.querySelector({json.dumps(selector)})"
            ".dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
        )

    def count(self, selector: str) -> int:
        return int(self.script(f"return document.querySelectorAll({json.dumps(selector)}).length"))

    def wait(self, selector: str, containing: str) -> None:
        """Until the first match's text contains the words."""
        deadline = time.monotonic() + WAIT_S
        seen = ""
        while time.monotonic() < deadline:
            seen = str(self.script(f"return document.querySelector({json.dumps(selector)})?.innerText ?? ''"))
            if containing in seen:
                return
            time.sleep(0.05)
        raise AssertionError(f"{selector} says {seen!r}, not {containing!r}")

    def complaints(self) -> list[str]:
        """What the page's console says from warning on: script errors, blocked content, failed loads."""
        return [str(entry["message"]) for entry in self._call("POST", "se/log", {"type": "browser"})]

    def viewport(self, width: int, height: int, *, phone: bool = False) -> None:
        """The size that the page is laid out for, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.cdp("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """What the visitor's system prefers: `light` or `dark`."""
        self.cdp(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]}
        )

    def cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        """What Chromium answers to a command of its DevTools protocol."""
        return self._call("POST", "goog/cdp/execute", {"cmd": command, "params": parameters})

    def press(self, *keys: str) -> None:
        """Keys one after the other, to whatever has the focus."""
        presses = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "actions", {"actions": [{"type": "key", "id": "keys", "actions": presses}]})

    def focused(self) -> str:
        """What the focus is on: its id, or its words."""
        return str(
            self.script(
                "const a = document.activeElement; return a.id || a.ariaLabel || a.innerText || a.tagName"
            )
        )

    def screenshot(self, path: pathlib.Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "screenshot")))

    def _find(self, selector: str) -> str:
        found = self._call("POST", "element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def _call(self, method: str, command: str, body: Any = None) -> Any:
        answer = self._http.request(method, f"{self._base}/{command}", json=body)
        value = answer.json()["value"]
        assert answer.is_success, f"{command}: {value['error']}: {value['message']}"
        return value


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A fresh headless Chromium; skips aloud where Chromium or its driver is missing."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("chromium and chromedriver are not installed (Debian: chromium chromium-driver)")
    with tempfile.TemporaryDirectory() as profile, _driver(driver) as port:
        options = {
            "goog:chromeOptions": {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "WARNING"},
            "timeouts": {"implicit": int(WAIT_S * 1000)},
        }
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            answer = http.post("/session", json={"capabilities": {"alwaysMatch": options}}).json()["value"]
            session = answer["sessionId"]
            try:
                yield Browser(http, session)
            finally:
                http.delete(f"/session/{session}")


@contextlib.contextmanager
def _driver(program: str) -> Iterator[int]:
    process = subprocess.Popen(
        [program, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if started := re.search(r"started successfully on port (\d+)", line):
                yield int(started[1])
                return
        raise AssertionError("chromedriver ended before it was ready")
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()
