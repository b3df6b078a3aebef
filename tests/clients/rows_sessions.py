"""Why: sessions and what belongs to them, as people's own ssh uses them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.clients.openssh import Missing, Way, need
from tests.clients.services import display
from tests.clients.table import Row, row

ROWS: list[Row] = []
LOAD = hashlib.shake_256(b"load").digest(12_000_000)


@row(ROWS, "ssh exec: output, errors and status come back apart", jump=True, newer=True)
def exec_(way: Way) -> None:
    done = way.ssh("echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\n", b"err\n")
    done = way.ssh("kill -TERM $$")
    assert done.returncode == 255
    assert way.says(b"printf %s '\xff\xfe\xe9'") == b"\xff\xfe\xe9"


@row(ROWS, "ssh shell without a terminal")
def shell(way: Way) -> None:
    done = way.ssh("-T", "--", data=b"cd /tmp\necho $((6*7)) $PWD\nexit 9\n")
    assert (done.returncode, done.stdout.split()[-2:]) == (9, [b"42", b"/tmp"])


@row(ROWS, "ssh -tt: a shell on a terminal", jump=True, newer=True)
def terminal(way: Way) -> None:
    done = way.ssh("-tt", "--", data=b"stty -echo; tty; stty size; echo $((6*7)); exit 7\n", env={"TERM": "xterm"})
    assert done.returncode == 7, done
    assert b"/dev/pts/" in done.stdout
    assert b"\r\n42\r\n" in done.stdout


@row(ROWS, "ssh -tt: interrupt, escapes and break")
def escapes(way: Way) -> None:
    for last in (b"\x03", b"~."):
        with way.session("-tt", "-e", "~", "--", "echo ready; cat") as client:
            assert client.stdin is not None
            out = Lines(client)
            out.until(b"ready")
            client.stdin.write(b"~Bafter break\n")
            out.until(b"after break\r\nafter break\r\n")
            client.stdin.write(last)
            assert client.wait(60) in {130, 255}  # killed by the signal, or a shell that saw it


@row(ROWS, "ssh -tt hides the rhythm of typing, as OpenSSH does since 9.5", newer=True)
def hidden_typing(way: Way) -> None:
    if way.openssh.version < (9, 5):
        raise Missing("OpenSSH hides the rhythm of typing since 9.5")
    with way.session("-tt", "-vvv", "--", "echo ready; cat", stderr=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stderr is not None
        out = Lines(client)
        out.until(b"ready")
        for key in b"typed":
            client.stdin.write(bytes([key]))
            out.until(bytes([key]))
        client.stdin.write(b"\n\x04")
        said = client.stderr.read()
        assert client.wait(60) == 0
    assert b"obfuscate_keystroke_timing: starting" in said


class Lines:
    """What a client has printed, as far as it was waited for."""

    def __init__(self, client: subprocess.Popen[bytes]) -> None:
        assert client.stdout is not None
        self._stream = client.stdout
        self._got = b""

    def until(self, words: bytes) -> None:
        while words not in self._got:
            more = self._stream.read(4096)
            assert more, self._got
            self._got += more
        self._got = self._got.partition(words)[2]

    def line(self) -> bytes:
        while not self._got.endswith(b"\n"):
            more = self._stream.read(1)
            assert more, self._got
            self._got += more
        got, self._got = self._got, b""
        return got


@row(ROWS, "ssh -f runs a command in the background")
def in_background(way: Way) -> None:
    mark, gate, end = way.short / "mark", way.short / "gate", way.short / "end"
    for fifo in (gate, end):
        os.mkfifo(fifo)
    with (way.short / "log").open("wb") as log:
        started = subprocess.run(
            way.ssh_command("-f", "--", f"cat {gate}; echo done > {mark}; cat {end}"),
            env=way.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=60,
            check=False,
        )
    assert started.returncode == 0
    assert not mark.exists()
    gate.write_text("go\n")
    end.write_text("end\n")  # opening it waits for its reader
    assert mark.read_text() == "done\n"


@row(ROWS, "ssh ControlMaster=auto: twelve sessions over one connection", jump=True, newer=True)
def control_master(way: Way) -> None:
    shared = ("-o", "ControlMaster=auto", "-o", f"ControlPath={way.short}/%C", "-o", "ControlPersist=60")
    assert persisting(way, *shared, "--", "echo first") == b"first\n"
    before = len(way.person.system.audit("bastion", "session_opened"))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: way.ssh(*shared, "--", f"echo {n}; exit {n}"), range(12)))
    assert [(one.returncode, one.stdout) for one in answers] == [(n, f"{n}\n".encode()) for n in range(12)]
    assert len(way.person.system.audit("bastion", "session_opened")) == before
    assert b"Master running" in way.ssh(*shared, "-O", "check", "--").stderr
    assert way.ssh(*shared, "-O", "exit", "--").returncode == 0


def persisting(way: Way, *arguments: str, data: bytes = b"") -> bytes:
    """An ssh that leaves a master behind, which keeps its standard error open: that must be no pipe."""
    with (way.short / "log").open("wb") as log:
        done = subprocess.run(
            way.ssh_command(*arguments),
            env=way.environment(), input=data, stdout=subprocess.PIPE, stderr=log, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (way.short / "log").read_text()
    return done.stdout


@row(ROWS, "ssh -A: many agent requests at once, and only who asked", jump=True, newer=True)
def agent(way: Way) -> None:
    need("ssh-agent", "ssh-add")
    place, fingerprint = way.short / "agent", subprocess.run(
        ["ssh-keygen", "-l", "-f", str(way.person.folder / "id.pub")], capture_output=True, check=True
    ).stdout.split()[1]  # fmt: skip
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            env = {"SSH_AUTH_SOCK": str(place)}
            subprocess.run(
                ["ssh-add", "-q", str(way.person.folder / "id")],
                env=way.environment(env),
                check=True,
                timeout=60,
            )
            chosen = ("-A", "-o", f"IdentityAgent={place}", "--")
            script = "for i in 1 2 3 4 5 6 7 8 9 10; do ssh-add -l & done; wait"
            assert way.says(*chosen, script).count(fingerprint) >= 10
            assert way.says("echo ${SSH_AUTH_SOCK-none}", env=env) == b"none\n"
        finally:
            process.terminate()


_X_CLIENT = """
import os, socket, struct, subprocess
shown = os.environ["DISPLAY"]
listed = subprocess.run(["xauth", "-q", "list", shown], capture_output=True).stdout.split()
number = int(shown.split(":")[1].split(".")[0])
s = socket.create_connection(("127.0.0.1", 6000 + number))
name, cookie = b"MIT-MAGIC-COOKIE-1", bytes.fromhex(listed[2].decode())
s.sendall(b"l\\0" + struct.pack("<HHHHH", 11, 0, len(name), len(cookie), 0) + name + b"\\0\\0" + cookie)
print(s.recv(100).decode(), cookie.hex())
"""


def _x11(way: Way, flag: str) -> None:
    need("xauth")
    program = way.short / "x.py"
    program.write_text(_X_CLIENT)
    cookie = os.urandom(16)
    with display() as (number, cookies):
        env = {"DISPLAY": f"127.0.0.1:{number}", "XAUTHORITY": str(way.short / "authority")}
        made = ["xauth", "-q", "add", env["DISPLAY"], ".", cookie.hex()]
        subprocess.run(made, env=way.environment(env), check=True, capture_output=True, timeout=60)
        trusted = (
            "-o",
            "ForwardX11Trusted=yes",
        )  # what Debian's -X does; the other kind asks the display for a cookie
        said = way.ssh(flag, *trusted, "--", f"{sys.executable} {program}", env=env)
        words, fake = said.stdout.decode().rsplit(" ", 1)
        assert words == "hello from X", said
        assert cookies == [cookie]
        assert bytes.fromhex(fake) != cookie
        assert way.says("echo ${DISPLAY-none}", env=env) == b"none\n"


@row(ROWS, "ssh -X: the display answers and the true cookie stays at home")
def x11(way: Way) -> None:
    _x11(way, "-X")


@row(ROWS, "ssh -Y: the display answers and the true cookie stays at home", jump=True)
def x11_trusted(way: Way) -> None:
    _x11(way, "-Y")


@row(ROWS, "ssh SendEnv and SetEnv: what the pod accepts arrives", jump=True)
def send_env(way: Way) -> None:
    chosen = ("-o", "SendEnv=LC_SENT", "-o", "SetEnv=LC_SET=blue", "-o", "SendEnv=SECRET", "--")
    said = way.says(*chosen, "echo $LC_SENT $LC_SET ${SECRET-none}", env={"LC_SENT": "g\u00fcn", "SECRET": "x"})
    assert said == "g\u00fcn blue none\n".encode()


@row(ROWS, "ssh RekeyLimit=1M under load, both ways", jump=True, newer=True)
def rekey(way: Way) -> None:
    assert way.says("-o", "RekeyLimit=1M", "--", "cat", data=LOAD) == LOAD


@row(ROWS, "ssh -C goes on, compressed or not", jump=True, newer=True)
def compression(way: Way) -> None:
    assert way.says("-C", "--", "cat", data=LOAD[:3_000_000] + bytes(3_000_000)) == LOAD[:3_000_000] + bytes(3_000_000)


@row(ROWS, "ssh with each cipher that is offered")
def ciphers(way: Way) -> None:
    for cipher in ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr"):
        assert way.says("-c", cipher, "--", "cat", data=LOAD[:2_000_000]) == LOAD[:2_000_000], cipher


@row(ROWS, "ssh: output after the exit status, and a reader that comes late")
def late_output(way: Way) -> None:
    script = "(sleep 0.2; head -c 3000000 /dev/zero) & exit 5"
    done = way.ssh(script)
    assert (done.returncode, len(done.stdout)) == (5, 3_000_000)


@row(ROWS, "ssh: the end of input is seen while output goes on")
def half_close(way: Way) -> None:
    done = way.says("sha256sum; head -c 5000000 /dev/zero", data=LOAD)
    assert done[:64].decode() == hashlib.sha256(LOAD).hexdigest()
    assert done.endswith(bytes(5_000_000))


def tree(folder: Path, files: int = 60) -> None:
    """A folder with files that are awkward in name and size."""
    folder.mkdir(parents=True)
    (folder / "empty folder").mkdir()
    deep = folder / "gr\u00fc\u00df dich" / "zwei  Leerzeichen" / "\u65e5\u672c"
    deep.mkdir(parents=True)
    for number in range(files):
        where = (folder, folder / "gr\u00fc\u00df dich", deep)[number % 3]
        (where / f"file {number} '\u00e4' (x).bin").write_bytes(os.urandom(number * 997 % 70_000))
    (folder / "runs").write_text("#!/bin/sh\n")
    (folder / "runs").chmod(0o750)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def assert_same(one: Path, other: Path) -> None:
    """Both folders hold the same files."""
    assert contents(one) == contents(other)
    assert (one / "runs").stat().st_mode == (other / "runs").stat().st_mode
