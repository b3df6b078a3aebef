"""Why: a real jupyterhub-singleuser takes three seconds to start; the hub only wants an HTTP server that answers.

It is started by the real spawner, with the real environment and token, and serves nothing but its address.
It ends when the process of the tests is gone, so that a killed run leaves nothing.
"""

import os
import select
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a single-user server of the tests\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


def end_with(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)
    select.select([process], [], [])
    os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    threading.Thread(target=end_with, args=(int(sys.argv[1]),), daemon=True).start()
    address = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    ThreadingHTTPServer((address.hostname or "127.0.0.1", address.port or 80), Handler).serve_forever()


if __name__ == "__main__":
    main()
