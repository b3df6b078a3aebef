"""Exists to be the one door to the api: enrol this server's host key, watch for news, withdraw at the end.

Answers are values: what was asked for, or `Refused` with a sentence. An answer is believed only after every field of
it was checked, since its text ends up in files that sshd obeys. Neither token is ever part of a repr or a sentence.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import re
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LARGEST_ANSWER = 256 * 1024  # bytes
_LARGEST_KRL = 16 * 1024 * 1024
_HOST_CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com"
_CA_ALGORITHMS = frozenset(
    {
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "ssh-rsa",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
_TYPE_HOST = 2  # OpenSSH PROTOCOL.certkeys, SSH_CERT_TYPE_HOST
_LASTING = frozenset({400, 401, 403, 404, 405, 413, 415, 422})


class _Unbelievable(Exception):
    """The api's answer does not hold what the protocol says; the text names the field."""


@dataclass(frozen=True)
class Enrolment:
    """What the api told about this server, all of it checked."""

    login: str
    host_name: str
    principal: str
    """The one certificate principal that may log in: this run of this server."""
    host_certificate: str
    valid_before: int
    """Seconds since the epoch, on the api's clock: the end of the host certificate."""
    user_ca: tuple[str, ...]
    hop_ca: tuple[str, ...]
    epoch: str
    withdraw_token: str = field(repr=False)


@dataclass(frozen=True)
class News:
    """What may have changed since the last look."""

    epoch: str
    """Another one: the api lost its database."""
    krl: str
    """The tag of the list of revoked certificates; empty where the api has none at the moment."""


@dataclass(frozen=True)
class Krl:
    """A list of revoked certificates in OpenSSH's format, not yet checked, and its tag."""

    content: bytes = field(repr=False)
    tag: str


@dataclass(frozen=True)
class Refused:
    """No, and why. `lasting`: asking again soon will not help."""

    sentence: str
    code: str = ""
    lasting: bool = False
    retry_after: float | None = None
    """Seconds the api asks to wait, at most five minutes."""


@dataclass(frozen=True)
class Api:
    """The api at `url`. Every call blocks, `timeout` seconds per step at most: call it from a thread."""

    url: str
    token: str = field(repr=False)
    timeout: float = 10.0

    def enrol(self, host_key: str, ssh_port: int, key_port: int, unix_user: str) -> Enrolment | Refused:
        """POST /enrolments: this host key belongs to the server that our JupyterHub token names."""
        body = {"host_key": host_key, "ssh_port": ssh_port, "key_port": key_port, "unix_user": unix_user}
        answer = self._ask("POST", "/enrolments", f"token {self.token}", body)
        if isinstance(answer, Refused):
            return answer
        try:
            return parse_enrolment(answer, host_key)
        except _Unbelievable as problem:
            return Refused(f"The api's answer cannot be used: {problem}.", code="bad_answer")

    def news(self) -> News | Refused:
        """GET /enrolments/epoch: cheap to ask."""
        answer = self._ask("GET", "/enrolments/epoch", None, None)
        if isinstance(answer, Refused):
            return answer
        epoch = answer.get("epoch")
        if not isinstance(epoch, str) or not 0 < len(epoch) <= 200:
            return Refused("The api's answer holds no epoch.", code="bad_answer")
        krl = answer.get("krl", "")
        return News(epoch, krl if isinstance(krl, str) and len(krl) <= 200 else "")

    def krl(self) -> Krl | Refused:
        """GET /krl: what is revoked now."""
        answer = self._send("GET", "/krl", None, None, _LARGEST_KRL)
        if isinstance(answer, Refused):
            return answer
        body, tag = answer
        return Krl(body, tag)

    def withdraw(self, withdraw_token: str) -> Refused | None:
        """DELETE /enrolments: this server's SSH is ending. None when it worked."""
        answer = self._ask("DELETE", "/enrolments", f"Bearer {withdraw_token}", None)
        return answer if isinstance(answer, Refused) else None

    def _ask(
        self, method: str, path: str, authorization: str | None, body: Mapping[str, Any] | None
    ) -> dict[str, Any] | Refused:
        answer = self._send(method, path, authorization, body, _LARGEST_ANSWER)
        if isinstance(answer, Refused):
            return answer
        try:
            return _object(answer[0])
        except _Unbelievable as problem:
            return Refused(f"The api's answer cannot be used: {problem}.", code="bad_answer")

    def _send(
        self, method: str, path: str, authorization: str | None, body: Mapping[str, Any] | None, largest: int
    ) -> tuple[bytes, str] | Refused:
        """The body of the answer, and its ETag without what stands around it."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - scheme checked in settings
        request.add_header("Accept", "application/json, application/octet-stream")
        if authorization is not None:
            request.add_header("Authorization", authorization)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with _opener().open(request, timeout=self.timeout) as response:
                tag = re.fullmatch(r'(?:W/)?"([!#-~]{1,200})"', response.headers.get("ETag", ""))
                return _read(response, self.timeout, largest), tag[1] if tag else ""
        except urllib.error.HTTPError as problem:
            with problem:
                return _refusal(problem, self.timeout)
        except _Unbelievable as problem:
            return Refused(f"The api's answer cannot be used: {problem}.", code="bad_answer")
        except (OSError, http.client.HTTPException) as problem:
            reason = getattr(problem, "reason", None) or problem
            return Refused(f"The api does not answer ({type(reason).__name__}: {reason}).", code="unreachable")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the JupyterHub token to wherever it points."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    # A proxy sees only what is encrypted: plain http goes straight to its in-cluster name.
    proxies = {scheme: url for scheme, url in urllib.request.getproxies().items() if scheme == "https"}
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _NoRedirects())


def _read(response: Any, timeout: float, largest: int = _LARGEST_ANSWER) -> bytes:
    deadline = time.monotonic() + timeout
    body = b""
    while chunk := response.read1(64 * 1024):
        body += chunk
        if len(body) > largest:
            raise _Unbelievable("it is too large")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer came too slowly")
    return body


def _object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise _Unbelievable("it is not JSON") from None
    if not isinstance(value, dict):
        raise _Unbelievable("it is not a JSON object")
    return value


def _refusal(problem: urllib.error.HTTPError, timeout: float) -> Refused:
    try:
        said = _object(_read(problem, timeout))
    except (_Unbelievable, OSError, http.client.HTTPException):
        said = {}
    code = said.get("error")
    sentence = said.get("error_description")
    code = code if isinstance(code, str) else ""
    if code == "host_key_conflict":
        # Nothing that this process can do: the first host key of a run stays, so that nobody can slip in another.
        return Refused(
            "Another SSH host key was already enrolled for this run of your server, so SSH stays off: "
            "stop the server in JupyterHub and start it again.",
            code=code,
            lasting=True,
        )
    return Refused(
        sentence if isinstance(sentence, str) and sentence else f"The api answered with status {problem.code}.",
        code=code or str(problem.code),
        lasting=problem.code in _LASTING,
        retry_after=_retry_after(problem.headers.get("Retry-After")),
    )


def _retry_after(text: str | None) -> float | None:
    # RFC 9110 10.2.3 also allows a date; our api sends seconds.
    return min(float(text), 300.0) if text and re.fullmatch(r"[0-9]{1,9}", text.strip()) else None


def parse_enrolment(answer: Mapping[str, Any], host_key: str) -> Enrolment:
    """The api's answer, checked field by field. Raises _Unbelievable."""
    text = {name: _text(answer, name) for name in ("login", "host_name", "principal", "epoch", "withdraw_token")}
    # Written into a principals file: nothing but our own grammar, so no option, comment or second line.
    if not re.fullmatch(r"[a-z0-9._=-]+/[a-z0-9._=-]*:[0-9]{1,20}", text["principal"]):
        raise _Unbelievable("'principal' does not look like owner/server:instance")
    valid_before = answer.get("valid_before")
    if not isinstance(valid_before, int) or isinstance(valid_before, bool) or valid_before <= 0:
        raise _Unbelievable("'valid_before' is not a time")
    return Enrolment(
        host_certificate=_host_certificate(_text(answer, "host_certificate"), host_key),
        valid_before=valid_before,
        user_ca=_ca_keys(answer, "user_ca"),
        hop_ca=_ca_keys(answer, "hop_ca"),
        **text,
    )


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 16384 or not value.isprintable():
        raise _Unbelievable(f"'{name}' is not one line of text")
    return value


def _ca_keys(answer: Mapping[str, Any], name: str) -> tuple[str, ...]:
    lines = answer.get(name)
    if not isinstance(lines, list) or not 0 < len(lines) <= 16:
        raise _Unbelievable(f"'{name}' is not a list of keys")
    keys = []
    for line in lines:
        algorithm, blob = _key(line, name)
        if algorithm not in _CA_ALGORITHMS:
            raise _Unbelievable(f"'{name}' holds something that is not a public key")
        keys.append(f"{algorithm} {base64.b64encode(blob).decode()}")
    return tuple(keys)


def _key(line: Any, name: str) -> tuple[str, bytes]:
    """(algorithm, blob) of a public key or certificate line; the comment is dropped."""
    words = line.split() if isinstance(line, str) and line.isprintable() and len(line) <= 16384 else []
    if len(words) < 2:
        raise _Unbelievable(f"'{name}' holds something that is not a public key")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise _Unbelievable(f"'{name}' holds something that is not a public key") from None
    inner, _ = _string(blob, name)
    if inner != words[0].encode("ascii", "replace"):
        raise _Unbelievable(f"'{name}' holds a key of another kind than it says")
    return words[0], blob


def _host_certificate(line: str, host_key: str) -> str:
    """The certificate's line without comment, once it is a host certificate for our own key (PROTOCOL.certkeys)."""
    algorithm, blob = _key(line, "host_certificate")
    if algorithm != _HOST_CERTIFICATE:
        raise _Unbelievable("'host_certificate' is not an ed25519 certificate")
    _, rest = _string(blob, "host_certificate")
    _, rest = _string(rest, "host_certificate")  # nonce
    public, rest = _string(rest, "host_certificate")
    _, ours = _key(host_key, "host_key")
    if len(rest) < 12 or public != _string(_string(ours, "host_key")[1], "host_key")[0]:
        raise _Unbelievable("'host_certificate' is for another key")
    if struct.unpack(">I", rest[8:12])[0] != _TYPE_HOST:
        raise _Unbelievable("'host_certificate' is not a host certificate")
    return f"{algorithm} {base64.b64encode(blob).decode()}"


def _string(data: bytes, name: str) -> tuple[bytes, bytes]:
    """One SSH string (RFC 4251 section 5) and what follows it."""
    length = struct.unpack(">I", data[:4])[0] if len(data) >= 4 else len(data)
    if 4 + length > len(data):
        raise _Unbelievable(f"'{name}' is cut short")
    return data[4 : 4 + length], data[4 + length :]
