"""Serves a page with one script, opens it in Chromium, and prints what the page sends back.

page_in_chromium.py PORT SCRIPT URL
"""

import http.server
import queue
import subprocess
import sys
import tempfile
import threading
from urllib.parse import urlencode

PORT, SCRIPT, URL = int(sys.argv[1]), sys.argv[2], sys.argv[3]
PAGE = b"<!doctype html><meta charset=utf-8><title>page</title><script type=module src=/script.js></script>"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
said: queue.Queue[str] = queue.Queue()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/script.js":
            with open(SCRIPT, "rb") as script:
                self._answer(script.read(), "text/javascript")
        else:
            self._answer(PAGE, "text/html")

    def do_POST(self) -> None:
        said.put(self.rfile.read(int(self.headers["content-length"])).decode())
        self._answer(b"", "text/plain")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
with tempfile.TemporaryDirectory() as profile:
    page = f"http://127.0.0.1:{PORT}/?{urlencode({'url': URL})}"
    browser = subprocess.Popen(
        ["chromium", *FLAGS, f"--user-data-dir={profile}", page],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        print(said.get(timeout=90))
    finally:
        browser.terminate()
        browser.wait(20)
