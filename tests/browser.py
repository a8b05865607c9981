"""A real headless Chromium, spoken to over its DevTools protocol: no driver and no download."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)
PATIENCE_S = 60


def find_browser() -> str | None:
    """A Chromium-like browser on PATH."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """One page in the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._sent = socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; events on the way are kept."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if message.get("id") == self._sent:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def open(self, address: str) -> None:
        """Load a page and wait for its load event; what was heard before is forgotten."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self._socket.recv(timeout=PATIENCE_S)))

    def shape(self, *, width: int, scheme: Literal["light", "dark"]) -> None:
        """Be a screen of this width with this colour scheme."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def evaluate(self, script: str) -> Any:
        """A script's value, as JSON."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Everything the page wrote to the console, and every exception."""
        loud = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
        return [event["params"] for event in self.events if event["method"] in loud]

    @property
    def requests(self) -> list[str]:
        """Every address the page asked for."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


@contextmanager
def open_browser(binary: str, profile: Path) -> Iterator[Tab]:
    """Start the browser with an empty profile; it is gone afterwards."""
    process = subprocess.Popen(
        [binary, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(process, profile)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=PATIENCE_S) as answer:
            tabs = json.load(answer)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def _port(process: "subprocess.Popen[bytes]", profile: Path) -> str:
    """The port it chose: it writes it into its profile once it listens."""
    written = profile / "DevToolsActivePort"
    for _ in range(10 * PATIENCE_S):
        if written.exists() and (lines := written.read_text().splitlines()):
            return lines[0]
        assert process.poll() is None, "the browser ended at once"
        time.sleep(0.1)
    raise AssertionError("the browser did not start")


CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => element
    ? over(rgba(getComputedStyle(element).backgroundColor), ground(element.parentElement)) : [255, 255, 255];
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const faint = new Set();
  const leaves = [...document.body.querySelectorAll("*")].filter((e) =>
    // Marks for white space are quiet on purpose; they repeat what the text's shape shows.
    !e.closest("svg, i, .hidden, .skip, .sign, script")
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  for (const e of leaves) {
    const back = ground(e), front = over(rgba(getComputedStyle(e).color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) faint.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}`);
  }
  return [...faint];
})()
"""
"""A script that lists the elements whose text stands out too little from its ground (WCAG 2, 4.5 to 1)."""
