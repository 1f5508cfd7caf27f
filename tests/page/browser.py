"""Drives a headless Chromium through its DevTools protocol, over a pipe: needs nothing but Python 3.

https://chromedevtools.github.io/devtools-protocol/ ; with --remote-debugging-pipe it reads JSON, ended by a zero byte,
from file descriptor 3 and writes it to 4.
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# name: (DOM key, code, key code, text)
KEYS = {
    "Space": (" ", "Space", 32, " "), "Enter": ("Enter", "Enter", 13, "\r"), "Tab": ("Tab", "Tab", 9, ""),
    "Escape": ("Escape", "Escape", 27, ""), "Left": ("ArrowLeft", "ArrowLeft", 37, ""),
    "Right": ("ArrowRight", "ArrowRight", 39, ""), "Home": ("Home", "Home", 36, ""), "End": ("End", "End", 35, ""),
    "PageUp": ("PageUp", "PageUp", 33, ""), "PageDown": ("PageDown", "PageDown", 34, ""),
}


def find():
    """The path of a Chromium, or None. CHROMIUM names one."""
    for name in (os.environ.get("CHROMIUM"), *NAMES):
        if name and shutil.which(name):
            return shutil.which(name)
    return None


class Browser:
    """One page. Collects what went wrong (errors) and what was asked of a network (requests)."""

    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(prefix="attn-page-", ignore_cleanup_errors=True)
        to_browser, self.output = os.pipe()
        self.input, from_browser = os.pipe()

        def arrange():  # by way of high numbers, as one of the two may be the other's goal
            os.dup2(to_browser, 90)
            os.dup2(from_browser, 91)
            os.dup2(90, 3)
            os.dup2(91, 4)

        options = ("headless=new no-sandbox disable-gpu disable-dev-shm-usage no-first-run disable-background-networking"
                   " disable-component-update disable-sync hide-scrollbars force-device-scale-factor=1"
                   " remote-debugging-pipe").split()
        self.process = subprocess.Popen(
            [program, *(f"--{name}" for name in options), f"--user-data-dir={self.profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=arrange,
            close_fds=False, start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.loads, self.buffer, self.session = 0, 0, b"", None
        self.errors, self.requests, self.events = [], [], []
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def read(self, seconds):
        """The next message, or None."""
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.input], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self.input, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self.buffer += piece
        raw, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(raw)

    def note(self, message):
        method, values = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.errors.append(str([a.get("value", a.get("description")) for a in values["args"]]))
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.errors.append(values["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        self.events.append(method)

    def ask(self, method, **values):
        self.number += 1
        message = {"id": self.number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read(60)
            if answer is None:
                raise RuntimeError(f"the browser does not answer {method}")
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.note(answer)

    def open(self, path, fragment=""):
        self.loads += 1  # the query makes it another page, which is loaded anew whatever the fragment
        self.events.clear()
        self.ask("Page.navigate", url=f"{pathlib.Path(path).resolve().as_uri()}?{self.loads}{fragment}")
        while "Page.loadEventFired" not in self.events:
            message = self.read(60)
            if message is None:
                raise RuntimeError("the page does not load")
            self.note(message)

    def evaluate(self, expression):
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def press(self, name):
        key, code, number, text = KEYS.get(name, (name, "", ord(name[0].upper()), name))
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def size(self, width, height, phone=False, scale=1):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                 mobile=phone)

    def media(self, **features):
        """media(prefers_color_scheme="dark")"""
        self.ask("Emulation.setEmulatedMedia",
                 features=[{"name": n.replace("_", "-"), "value": v} for n, v in features.items()])

    def screenshot(self, path):
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        try:
            self.session = None
            self.ask("Browser.close")
        except (RuntimeError, OSError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.input)
        os.close(self.output)
        self.profile.cleanup()
