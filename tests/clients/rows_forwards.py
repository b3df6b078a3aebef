"""Why: forwards of every kind, each carrying parallel connections with half-closes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.clients.openssh import Way
from tests.clients.services import LATER, ask, proof, refuses, service, through_socks, unix_service
from tests.clients.table import Row, row
from tests.support.sshd import free_port

ROWS: list[Row] = []


def in_parallel(where: int | Path, times: int = 8) -> None:
    with ThreadPoolExecutor(times) as pool:
        list(pool.map(ask, [where] * times))


@row(ROWS, "ssh -N -L", jump=True, newer=True)
def local(way: Way) -> None:
    port = free_port()
    with service() as target, way.forwarding("-L", f"127.0.0.1:{port}:127.0.0.1:{target}"):
        in_parallel(port)


@row(ROWS, "ssh -N -D with two hundred connections at once, as a browser has", jump=True)
def dynamic_many(way: Way) -> None:
    port = free_port()
    with service() as target, way.forwarding("-D", str(port)), ThreadPoolExecutor(20) as pool:
        streams = list(pool.map(lambda _: through_socks(port, target), range(200)))
        list(pool.map(lambda stream: ask(stream, os.urandom(1000)), streams))


@row(ROWS, "ssh -f -N -L, ended through its control socket")
def local_in_background(way: Way) -> None:
    port = free_port()
    with service() as target, way.background("-L", f"127.0.0.1:{port}:127.0.0.1:{target}"):
        in_parallel(port, 2)


@row(ROWS, "ssh -L to a port where nothing listens fails alone")
def local_refused(way: Way) -> None:
    good, bad, closed = free_port(), free_port(), free_port()
    with service() as target:
        forwards = ("-L", f"{good}:127.0.0.1:{target}", "-L", f"{bad}:127.0.0.1:{closed}")
        with way.forwarding(*forwards):
            with socket.create_connection(("127.0.0.1", bad), timeout=60) as stream:
                assert stream.recv(10) == b""
            ask(good)


@row(ROWS, "ssh -N -R, a port that the pod chooses, and its end", jump=True, newer=True)
def remote(way: Way) -> None:
    with service() as target:
        with way.session("-N", "-R", f"0:127.0.0.1:{target}", "--", stderr=subprocess.PIPE) as client:
            assert client.stderr is not None
            said = re.match(rb"Allocated port (\d+) for remote forward", client.stderr.readline())
            assert said
            port = int(said[1])
            in_parallel(port)
        way.person.system.wait("the port to close", lambda: refuses(port))


@row(ROWS, "ssh -R on a chosen port, added and cancelled while it runs")
def remote_cancelled(way: Way) -> None:
    port = free_port()
    with service() as target, way.background() as control:
        forward = f"{port}:127.0.0.1:{target}"
        assert way.ssh(*control, "-O", "forward", "-R", forward, "--").returncode == 0
        in_parallel(port, 2)
        assert way.ssh(*control, "-O", "cancel", "-R", forward, "--").returncode == 0
        way.person.system.wait("the port to close", lambda: refuses(port))


@row(ROWS, "ssh -R as SOCKS proxy of the client's side", newer=True)
def remote_dynamic(way: Way) -> None:
    port = free_port()
    with service() as target, way.background("-o", "ExitOnForwardFailure=yes", "-R", str(port)):
        ask(through_socks(port, target))


@row(ROWS, "ssh -N -D: SOCKS", jump=True, newer=True)
def dynamic(way: Way) -> None:
    port = free_port()
    with service() as target, way.forwarding("-D", str(port)), ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: ask(through_socks(port, target)), range(6)))


@row(ROWS, "ssh -W: input and output are a port", jump=True)
def stdio(way: Way) -> None:
    with service() as target:
        content = LATER * 5
        done = way.ssh("-W", f"127.0.0.1:{target}", "--", data=content)
        assert (done.returncode, done.stdout) == (0, proof(content))


@row(ROWS, "ssh -L and -R between unix sockets", jump=True, newer=True)
def unix_sockets(way: Way) -> None:
    near, far = way.short / "near", way.short / "far"
    with (
        unix_service(way.short / "service") as target,
        way.background("-o", "ExitOnForwardFailure=yes", "-L", f"{near}:{target}", "-R", f"{far}:{target}"),
    ):
        in_parallel(near, 4)
        in_parallel(far, 4)


@row(ROWS, "ssh -L and -R between a port and a unix socket")
def mixed_sockets(way: Way) -> None:
    port, far = free_port(), way.short / "far"
    with service() as target, unix_service(way.short / "service") as path, way.background() as control:
        for forward in (("-L", f"127.0.0.1:{port}:{path}"), ("-R", f"{far}:127.0.0.1:{target}")):
            assert way.ssh(*control, "-O", "forward", *forward, "--").returncode == 0
        ask(port)
        ask(far)


@row(ROWS, "ssh -tt with -L, -R and -D at once, all busy")
def everything_at_once(way: Way) -> None:
    forward, socks = free_port(), free_port()
    with (
        service() as target,
        way.background("-L", f"{forward}:127.0.0.1:{target}", "-D", str(socks)) as control,
    ):
        added = way.ssh(*control, "-O", "forward", "-R", f"0:127.0.0.1:{target}", "--")
        back = int(added.stdout)
        with ThreadPoolExecutor(12) as pool:
            busy = [pool.submit(ask, port) for port in (forward, back) * 3]
            busy += [pool.submit(lambda: ask(through_socks(socks, target))) for _ in range(3)]
            shell = way.ssh("-tt", *control, "--", data=b"stty -echo; echo $((6*7)); exit 5\n", env={"TERM": "xterm"})
            for one in busy:
                one.result()
        assert shell.returncode == 5
        assert re.search(rb"\b42\r?\n", shell.stdout)
