"""Why: scripts, editors and tools start ssh themselves, in ways of their own that break where one detail differs."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from tests.clients.openssh import Way
from tests.clients.rows_sessions import LOAD, Lines, assert_same, persisting, tree
from tests.clients.services import through_socks
from tests.clients.table import Row, row
from tests.support.sshd import free_port

ROWS: list[Row] = []


# -- twenty-year-old scripts


@row(ROWS, "ssh host 'cat > file' < file, and back", jump=True, newer=True)
def cat(way: Way) -> None:
    there = way.short / "there it is"
    assert way.says(f"cat > {shlex.quote(str(there))}", data=LOAD) == b""
    assert there.read_bytes() == LOAD
    assert way.says(f"cat < {shlex.quote(str(there))}", data=None) == LOAD


@row(ROWS, "tar through a pipe, both ways")
def tar(way: Way) -> None:
    source, there, back = way.short / "source", way.short / "there", way.short / "back"
    tree(source)
    for folder in (there, back):
        folder.mkdir()
    packed = subprocess.run(["tar", "-C", str(source), "-cf", "-", "."], capture_output=True, check=True).stdout
    assert way.says(f"tar -C {there} -xf -", data=packed) == b""
    assert_same(source, there)
    again = way.says(f"tar -C {there} -czf - .", data=None)
    subprocess.run(["tar", "-C", str(back), "-xzf", "-"], input=again, check=True)
    assert_same(source, back)


@row(ROWS, "ssh -n in a loop leaves the loop its input")
def no_input(way: Way) -> None:
    ssh = " ".join(map(shlex.quote, map(str, way.ssh_command("-n", "--"))))
    script = f"printf '1\\n2\\n3\\n' | while read i; do {ssh} echo got $i; done"
    done = subprocess.run(["sh", "-c", script], env=way.environment(), capture_output=True, timeout=60, check=True)
    assert done.stdout == b"got 1\ngot 2\ngot 3\n"


@row(ROWS, "a here-document on the input of sh")
def here_document(way: Way) -> None:
    ssh = " ".join(map(shlex.quote, map(str, way.ssh_command())))
    script = f"{ssh} sh -s one 'two' << 'EOF'\nset -e\nfor i in \"$@\"; do echo $i; done\nexit 3\nEOF\n"
    done = subprocess.run(["sh", "-c", script], env=way.environment(), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, b"one\ntwo\n")


# -- what editors and tools do


@row(ROWS, "Ansible: ControlPersist, a module on the input of python3, with and without a terminal", newer=True)
def ansible(way: Way) -> None:
    shared = (
        "-C",
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPersist=60s",
        "-o",
        f"ControlPath={way.short}/cp",
    )
    never = ("-o", "KbdInteractiveAuthentication=no", "-o", "PasswordAuthentication=no")
    module = b"import json, sys\nprint(json.dumps({'changed': True, 'argv': len(sys.argv)}))\n"
    assert persisting(way, *shared, *never, "--", "/bin/sh -c 'echo ~ && sleep 0'") != b""
    run = way.ssh(*shared, *never, "--", "/bin/sh -c 'python3 - && sleep 0'", data=module)
    assert (run.returncode, run.stdout) == (0, b'{"changed": true, "argv": 1}\n')
    put = way.run("sftp", "-b", "-", *shared, *never, "--", way.target, data=(
        f"put {_written(way.short / 'module.py', module)} {way.short}/AnsiballZ.py\n".encode()
    ))  # fmt: skip
    assert put.returncode == 0, put
    on_terminal = way.ssh("-tt", *shared, *never, "--", f"/bin/sh -c 'python3 {way.short}/AnsiballZ.py && sleep 0'")
    assert on_terminal.stdout.split() == [b'{"changed":', b"true,", b'"argv":', b"1}"]
    assert way.ssh(*shared, "-O", "exit", "--").returncode == 0


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


_EDITOR_SERVER = r"""
import http.server, os, socketserver, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"editor " + self.path.encode() * 20000)
    def log_message(self, *arguments): pass
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
server = Server(("127.0.0.1", 0), Handler)
print("listeningOn==%d==" % server.server_address[1], flush=True)
server.serve_forever()
"""


@row(
    ROWS,
    "VS Code: a script on the input of bash, its server, -D and -L to it, a second connection",
    jump=True,
    newer=True,
)
def vs_code(way: Way) -> None:
    server, log, pid = way.short / "server.py", way.short / "log", way.short / "pid"
    install = f"""
    mkdir -p {way.short}
    cat > {server} <<'END'\n{_EDITOR_SERVER}\nEND
    mkfifo {log}
    nohup {sys.executable} {server} > {log} 2>&1 < /dev/null &
    echo $! > {pid}
    head -n 1 {log}
    """
    socks, local_port = free_port(), free_port()
    with way.session("-T", "-D", str(socks), "-o", "ConnectTimeout=15", "--", "bash --login -c bash") as client:
        assert client.stdin is not None
        client.stdin.write(install.encode())  # the input stays open: the connection lives as long as the window
        remote = _port(Lines(client).line())
        try:
            for number in range(3):
                _fetch(through_socks(socks, remote), f"/{number}")
            with way.forwarding("-L", f"{local_port}:127.0.0.1:{remote}"):
                _fetch(socket.create_connection(("127.0.0.1", local_port), timeout=60), "/again")
        finally:
            way.ssh(f"kill $(cat {pid})")


def _port(line: bytes) -> int:
    found = re.fullmatch(rb"listeningOn==(\d+)==\r?\n", line)
    assert found, line
    return int(found[1])


def _fetch(stream: socket.socket, path: str) -> None:
    with stream:
        stream.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(1 << 16), b""))
    assert answer.endswith(b"editor " + path.encode() * 20000)


@row(ROWS, "JetBrains Gateway: sftp upload, exec bit, a long-lived command and a forward to it", jump=True)
def gateway(way: Way) -> None:
    worker = _written(way.short / "worker.local", f"#!{sys.executable}\n{_EDITOR_SERVER}".encode())
    there, local_port = way.short / "worker", free_port()
    put = way.run("sftp", "-b", "-", way.target, data=f"put {worker} {there}\nchmod 755 {there}\n".encode())
    assert put.returncode == 0, put
    with way.session("-T", "--", str(there)) as client:
        remote = _port(Lines(client).line())
        with way.forwarding("-L", f"{local_port}:127.0.0.1:{remote}"):
            _fetch(socket.create_connection(("127.0.0.1", local_port), timeout=60), "/")
