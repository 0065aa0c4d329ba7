"""A headless Chromium that is driven as a person would, through chromedriver (W3C WebDriver, plain JSON over HTTP).

`python tests/page/webdriver.py PAGE PICTURE` writes a picture of a page: .png, .jpg or .webp, of `--width` and
`--height`, light or `--dark`.
"""

import argparse
import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What a person does not see: other pages, updates, and a sandbox that needs rights which a container lacks.
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]


def missing() -> str | None:
    """What is not installed, with what to do; None if all is there."""
    if shutil.which("chromedriver") is None or browser() is None:
        return "Chromium and its driver are not installed (on Debian: apt-get install chromium chromium-driver)"
    return None


def browser() -> str | None:
    """The browser's program."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Browser:
    """A browser with one page. Use it with `with`."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self.session = f"http://127.0.0.1:{port}", ""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], **quiet)

    def __enter__(self):
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                self.ask("GET", "/status")
                break
            if time.monotonic() > deadline or self.driver.poll() is not None:
                raise RuntimeError("chromedriver does not start")
            time.sleep(0.05)
        options = {"binary": browser(), "args": ARGUMENTS}
        logs = {"goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options} | logs}
        self.session = "/session/" + self.ask("POST", "/session", {"capabilities": capabilities})["sessionId"]
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.ask("DELETE", self.session)
        self.driver.terminate()
        self.driver.wait(20)

    def ask(self, method: str, path: str, body: dict | None = None):
        """One command; its value."""
        content = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, content, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()[:500]}") from error

    def do(self, path: str, **body):
        """One command of the session."""
        return self.ask("POST", f"{self.session}{path}", body)

    def devtools(self, command: str, **parameters):
        """A command of Chromium's own protocol."""
        return self.do("/goog/cdp/execute", cmd=command, params=parameters)

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window in CSS pixels, and the colours that its owner prefers."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def open(self, page: Path) -> None:
        """Opens a file."""
        self.do("/url", url=page.resolve().as_uri())

    def find(self, selector: str) -> str:
        """The first element of a CSS selector."""
        return self.do("/element", using="css selector", value=selector)[ELEMENT]

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of what is seen of an element."""
        self.do(f"/element/{self.find(selector)}/click")

    def press(self, keys: str, selector: str = "body") -> None:
        """Keys, typed into an element."""
        self.do(f"/element/{self.find(selector)}/value", text=keys)

    def drag(self, selector: str, start: float, end: float) -> None:
        """A press of the mouse on an element, and a way across it; in shares of its width."""
        box = self.run("const b = arguments[0].getBoundingClientRect(); return b.width", self.find(selector))
        origin = {ELEMENT: self.find(selector)}
        move = [
            {"type": "pointerMove", "duration": 50, "origin": origin, "x": round((share - 0.5) * box), "y": 0}
            for share in (start, end)
        ]
        press, release = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        pointer = {"type": "pointer", "id": "mouse", "actions": [move[0], press, move[1], release]}
        self.do("/actions", actions=[pointer])

    def run(self, script: str, *elements: str):
        """What a function of JavaScript returns."""
        return self.do("/execute/sync", script=script, args=[{ELEMENT: element} for element in elements])

    def text(self, selector: str) -> str:
        """The text of an element as it is seen."""
        return self.ask("GET", f"{self.session}/element/{self.find(selector)}/text")

    def seen(self, selector: str) -> bool:
        """Whether an element is seen."""
        return self.ask("GET", f"{self.session}/element/{self.find(selector)}/displayed")

    def log(self, kind: str) -> list[dict]:
        """What was logged since the last call: `browser` or `performance`."""
        return self.do("/se/log", type=kind)

    def picture(self, path: Path, quality: int = 70, scale: float = 1.0) -> None:
        """What the window shows."""
        kind = {".png": "png", ".jpg": "jpeg", ".webp": "webp"}[path.suffix]
        chosen = {} if kind == "png" else {"quality": quality}
        if scale != 1.0:
            width, height, top = self.run("return [innerWidth, innerHeight, scrollY]")
            chosen["clip"] = {"x": 0, "y": top, "width": width, "height": height, "scale": scale}
        shot = self.devtools("Page.captureScreenshot", format=kind, **chosen)
        path.write_bytes(base64.b64decode(shot["data"]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--quality", type=int, default=70, help="of .jpg and .webp")
    parser.add_argument("--scale", type=float, default=1.0, help="of the picture")
    parser.add_argument("--click", action="append", default=[], help="an element to click first (CSS selector)")
    parser.add_argument("--at", help="an element to scroll to (CSS selector)")
    arguments = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(f"error: {why}")
    with Browser() as browser:
        browser.look(arguments.width, arguments.height, arguments.dark)
        browser.open(arguments.page)
        for selector in arguments.click:
            browser.click(selector)
        if arguments.at:
            browser.run("arguments[0].scrollIntoView()", browser.find(arguments.at))
        browser.picture(arguments.picture, arguments.quality, arguments.scale)


if __name__ == "__main__":
    main()
