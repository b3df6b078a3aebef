"""Why: the bastion's fallback reads each pod's keys from here, and it must not cost the notebook anything."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request

import pytest

from tests.support.notebook import Notebook


@pytest.fixture
def running(notebook: Notebook) -> Notebook:
    notebook.start()
    notebook.api.wait_for("POST", "/enrolments")
    return notebook


def _get(notebook: Notebook, path: str = "/publickey", method: str = "GET") -> tuple[int, str, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{notebook.key_port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.headers["Content-Type"], problem.read()


def test_the_file_is_answered_as_it_is_at_that_moment(running: Notebook) -> None:
    assert _get(running) == (200, "text/plain; charset=utf-8", b"")
    running.raw_key()
    assert _get(running) == (200, "text/plain; charset=utf-8", running.authorized_keys.read_bytes())
    running.authorized_keys.write_bytes(b"# none\xff\n")
    assert _get(running)[2] == b"# none\xff\n"


def test_other_paths_and_methods_get_nothing(running: Notebook) -> None:
    running.raw_key()
    assert _get(running, "/")[::2] == (404, b"")
    assert _get(running, "/publickey/../../etc/passwd")[::2] == (404, b"")
    assert _get(running, method="POST")[::2] == (405, b"")
    assert _get(running, "/publickey?x=1")[0] == 200


def test_what_is_not_a_file_of_sane_size_is_empty(running: Notebook) -> None:
    path = running.authorized_keys
    path.write_bytes(b"x" * (1024 * 1024 + 1))
    assert _get(running)[::2] == (200, b"")
    path.unlink()
    os.mkfifo(path)
    assert _get(running)[::2] == (200, b"")
    path.unlink()
    path.mkdir()
    assert _get(running)[::2] == (200, b"")


@pytest.mark.parametrize("words", [b"", b"\r\n\r\n", b"GET /publickey\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"x" * 20_000])
def test_garbage_is_dropped_and_the_next_request_is_answered(running: Notebook, words: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running.key_port), timeout=30) as garbage:
        garbage.sendall(words)
        garbage.shutdown(socket.SHUT_WR)
        assert b"200 OK" not in _all(garbage)
    assert _get(running)[0] == 200


def _all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_hundreds_of_silent_clients_keep_nobody_out(running: Notebook) -> None:
    silent = [socket.create_connection(("127.0.0.1", running.key_port), timeout=30) for _ in range(200)]
    try:
        assert _get(running)[0] == 200
        assert _all(silent[0]) == b""  # the one that waited longest had to go, at the latest by its time-out
    finally:
        for connection in silent:
            connection.close()
