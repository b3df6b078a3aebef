"""Why: the pod side must be tested against an api that can be down, wrong, slow and forgetful at will.

This is not the api: it believes every token, keeps nothing, and decides nothing. What is real is what reaches the
pod's sshd: the CA keys and the host certificates are made and signed by `ssh-keygen`. That the real api answers in
this form is shown by the end-to-end tests, not here.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PRINCIPAL = "alice/gpu:1763000000000001"
HOST_NAME = "alice+gpu.hub"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    authorization: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Canned:
    """An answer to give instead of the usual one."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def refusal(cls, status: int, code: str, sentence: str = "No.", **headers: str) -> Canned:
        body = json.dumps({"error": code, "error_description": sentence}).encode()
        return cls(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class EnrolmentApi:
    """The api's routes for pods on a loopback port that stays the same over stop and start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Asked] = []
        self.next_answers: list[Canned] = []
        self.change: Mapping[str, object] = {}
        """Fields of the enrolment answer to replace."""
        self.lifetime = 3600
        self.epoch = "aa00"
        self.krl: bytes | None = None
        """What is revoked; None: an api of before such lists."""
        self.krl_answer: Canned | None = None
        """To give instead of it."""
        self._changed = threading.Condition()
        self._serial = 0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        for name in ("user_ca", "hop_ca", "host_ca"):
            make_key(folder / name)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def known_hosts(self) -> str:
        return f"@cert-authority *.hub {(self.folder / 'host_ca.pub').read_text()}"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait_for(self, method: str, path: str, count: int = 1, limit: float = 60.0) -> Asked:
        """The `count`th request of that kind; fails when it has not come within `limit` seconds."""

        def found() -> list[Asked]:
            return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]

        self._wait(lambda: len(found()) >= count, f"{method} {path} did not come {count} times", limit)
        return found()[count - 1]

    def answer(self, asked: Asked) -> Canned:
        """Decide, and remember what was asked only afterwards, so that `wait_for` means "was answered"."""
        with self._changed:
            canned = self._answer(asked)
            self.asked.append(asked)
            self._changed.notify_all()
        return canned

    def _answer(self, asked: Asked) -> Canned:
        if (asked.method, asked.path) == ("GET", "/enrolments/epoch"):
            tag = {} if self.krl is None else {"krl": hashlib.sha256(self.krl).hexdigest()}
            return Canned(200, json.dumps({"epoch": self.epoch, **tag}).encode())
        if (asked.method, asked.path) == ("GET", "/krl"):
            if self.krl is None or self.krl_answer is not None:
                return self.krl_answer or Canned.refusal(404, "not_found")
            return Canned(200, self.krl, {"ETag": f'W/"{hashlib.sha256(self.krl).hexdigest()}"'})
        if self.next_answers:
            return self.next_answers.pop(0)
        if (asked.method, asked.path) == ("DELETE", "/enrolments"):
            return Canned(204, b"")
        if (asked.method, asked.path) == ("POST", "/enrolments"):
            return Canned(200, json.dumps(self._enrolment(str(asked.body["host_key"]))).encode())
        return Canned.refusal(404, "not_found")

    def _enrolment(self, host_key: str) -> dict[str, object]:
        self._serial += 1
        valid_before = int(time.time()) + self.lifetime
        return {
            "owner": "alice",
            "server": "gpu",
            "login": "alice+gpu",
            "host_name": HOST_NAME,
            "instance": "1763000000000001",
            "principal": PRINCIPAL,
            "host_certificate": self.sign_host(host_key),
            "valid_before": valid_before,
            "user_ca": [(self.folder / "user_ca.pub").read_text().strip()],
            "hop_ca": [(self.folder / "hop_ca.pub").read_text().strip()],
            "epoch": self.epoch,
            "withdraw_token": "withdraw-secret",
        } | dict(self.change)

    def sign_host(self, host_key: str) -> str:
        public = self.folder / "asked.pub"
        public.write_text(host_key + "\n")
        sign(self.folder / "host_ca", public, HOST_NAME, "-h", "-z", str(self._serial))
        return (self.folder / "asked-cert.pub").read_text().strip()

    def revoke(self, *certificates: Path) -> None:
        """Let ssh-keygen write the list of these."""
        path = self.folder / "krl"
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(path), *map(str, certificates)], check=True)
        self.krl = path.read_bytes()

    def _wait(self, condition: Callable[[], bool], otherwise: str, limit: float) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, limit):
                raise AssertionError(f"{otherwise} within {limit} s; there came: {self.asked}")


def make_key(path: Path) -> Path:
    """A new ed25519 key without passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)
    return path


def sign(ca: Path, public: Path, principals: str, *options: str) -> Path:
    """Let ssh-keygen sign `public`; the path of the certificate."""
    command = ["ssh-keygen", "-q", "-s", str(ca), "-I", "alice", "-n", principals, *options, str(public)]
    subprocess.run(command, check=True, capture_output=True)
    return public.with_name(f"{public.stem}-cert.pub")


def _handler(api: EnrolmentApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, self.headers.get("Authorization") or "", json.loads(body or b"{}"))
            answer = api.answer(asked)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    return Handler
