"""Why: OpenSSH is not the only ssh: other programs and libraries, in the ways in which they differ from it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.clients.openssh import LIMIT, Missing, Way, need
from tests.clients.rows_forwards import in_parallel
from tests.clients.rows_sessions import LOAD, assert_same, contents, tree
from tests.clients.services import ask, service, through_socks
from tests.clients.table import Row, row
from tests.support.sshd import free_port

ROWS: list[Row] = []


def _run(
    way: Way, *command: str, data: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, input=data, env=way.environment(env), capture_output=True, timeout=LIMIT, check=False
    )


@contextlib.contextmanager
def _forwarding(way: Way, *command: str) -> Iterator[None]:
    """A client with forwards; its command says "up" after they are there, and ends with its input."""
    with subprocess.Popen(
        [*command, "echo up; cat"],
        env=way.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"up\n"
            yield
        finally:
            client.kill()


# -- PuTTY


def _putty(way: Way) -> list[str]:
    """What PuTTY's programs need: a key in its own format, the certificate, and the host key that they are to see."""
    need("plink", "puttygen", "ssh-keyscan")
    release = re.search(rb"Release (\d+)\.(\d+)", _run(way, "plink", "-V").stdout)
    if release is not None and (int(release[1]), int(release[2])) < (0, 78):
        raise Missing("PuTTY knows certificates since 0.78")
    key = way.short / "key.ppk"
    if not key.exists():
        made = _run(way, "puttygen", str(way.person.folder / "id"), "-O", "private", "-o", str(key))
        assert made.returncode == 0, made
    port = str(way.person.system.port)
    shown = _run(way, "ssh-keyscan", "-p", port, "127.0.0.1")
    seen = _run(way, "ssh-keygen", "-l", "-f", "-", data=shown.stdout).stdout.split()[1].decode()
    certificate = str(way.person.certificate_file)
    return ["-batch", "-noagent", "-P", port, "-hostkey", seen, "-i", str(key), "-cert", certificate]


@row(ROWS, "PuTTY: plink, its streams, its status and a shell on a terminal")
def plink(way: Way) -> None:
    options = _putty(way)
    done = _run(way, "plink", *options, way.target, "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\n", b"err\n")
    done = _run(way, "plink", "-C", *options, way.target, "cat; exit 3", data=LOAD)
    assert (done.returncode, done.stdout == LOAD) == (3, True)
    done = _run(way, "plink", "-t", *options, way.target, data=b"stty -echo; tty; echo $((6*7)); exit 7\n")
    assert done.returncode == 7, done
    assert b"/dev/pts/" in done.stdout
    assert b"42" in done.stdout


@row(ROWS, "PuTTY: plink -L, -R and -D")
def plink_forwards(way: Way) -> None:
    near, far, socks = free_port(), free_port(), free_port()
    with service() as target:
        forwards = ("-L", f"{near}:127.0.0.1:{target}", "-R", f"{far}:127.0.0.1:{target}", "-D", str(socks))
        with _forwarding(way, "plink", *_putty(way), *forwards, way.target):
            in_parallel(near, 4)
            in_parallel(far, 4)
            ask(through_socks(socks, target))
        way.person.system.wait("the port to close", lambda: not _listens(far))


def _listens(port: int) -> bool:
    return any(
        int(line.split()[1].split(":")[1], 16) == port and line.split()[3] == "0A"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
    )


@row(ROWS, "PuTTY: pscp over sftp and the old way, psftp")
def pscp(way: Way) -> None:
    options = _putty(way)
    need("pscp", "psftp")
    source = way.short / "source"
    source.mkdir()
    for number in range(20):
        (source / f"file {number}").write_bytes(os.urandom(number * 50_000))
    (source / "runs").write_text("")
    for flag in ("-sftp", "-scp"):
        there, back = way.short / f"there{flag}", way.short / f"back{flag}"
        for folder in (there, back):
            folder.mkdir()  # pscp makes none for what it copies
        for arguments in ((str(source), f"{way.target}:{there}"), (f"{way.target}:{there}/source", str(back))):
            done = _run(way, "pscp", "-q", "-r", flag, *options, *arguments)
            assert (done.returncode, done.stderr) == (0, b""), done
        assert contents(source) == contents(back / "source")
    batch = way.short / "batch"
    batch.write_text(f"mkdir {way.short}/sent\ncd {way.short}/sent\nput {source}/runs\nmv runs moved\nls\n")
    done = _run(way, "psftp", *options, "-b", str(batch), way.target)
    assert done.returncode == 0, done
    assert (way.short / "sent" / "moved").exists()


# -- Dropbear


def _dropbear(way: Way) -> list[str]:
    """dbclient with a key that the pod lists: it knows no certificates."""
    need("dbclient", "dropbearkey")
    key = way.short / "dropbear"
    if not key.exists():
        made = _run(way, "dropbearkey", "-t", "ed25519", "-f", str(key))
        public = next(line for line in made.stdout.splitlines() if line.startswith(b"ssh-ed25519 "))
        keys = way.person.system.home(way.person.user) / ".ssh" / "authorized_keys"
        keys.parent.mkdir(mode=0o700, exist_ok=True)
        with keys.open("ab") as file:
            file.write(public + b"\n")
        assert "pods answered" in way.person.system.command("refresh-keys").stdout
    return ["dbclient", "-y", "-y", "-i", str(key), "-p", str(way.person.system.port)]


@row(ROWS, "Dropbear: dbclient, its streams and its status, and rsync over it")
def dbclient(way: Way) -> None:
    client = _dropbear(way)
    done = _run(way, *client, way.target, "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout) == (42, b"out\n")
    assert done.stderr.endswith(b"err\n")
    done = _run(way, *client, way.target, "cat; exit 3", data=LOAD)
    assert (done.returncode, done.stdout == LOAD) == (3, True)
    need("rsync")
    source, there = way.short / "source", way.short / "there"
    tree(source)
    done = _run(way, "rsync", "-a", "-e", " ".join(client), f"{source}/", f"{way.target}:{there}/")
    assert done.returncode == 0, done
    assert_same(source, there)


@row(ROWS, "Dropbear: dbclient -L, -R and -B")
def dbclient_forwards(way: Way) -> None:
    client = _dropbear(way)
    near, far = free_port(), free_port()
    with service() as target:
        forwards = ("-L", f"{near}:127.0.0.1:{target}", "-R", f"{far}:127.0.0.1:{target}")
        with _forwarding(way, *client, *forwards, way.target):
            in_parallel(near, 4)
            in_parallel(far, 4)


# -- libraries and what stands on them


@row(ROWS, "paramiko: commands, sftp, a terminal, forwards both ways, new keys, huge and tiny windows")
def paramiko(way: Way) -> None:
    system = way.person.system
    with service() as target:
        done = _run(
            way,
            sys.executable,
            str(Path(__file__).with_name("paramiko_client.py")),
            *(str(system.port), way.login, str(way.person.folder / "id"), str(way.short), str(target)),
        )
    if b"No module named 'paramiko'" in done.stderr:
        raise Missing("paramiko is not installed here")
    assert (done.returncode, done.stdout) == (0, b"all of it\n"), done.stderr.decode()


_PLAYBOOK = """
- hosts: pods
  gather_facts: false
  tasks:
    - ping:
    - ping:
      vars: {ansible_pipelining: true}
    - command: echo in the pod
      register: said
      vars: {ansible_pipelining: true}
      failed_when: said.stdout != "in the pod"
    - copy: {src: %(short)s/sent, dest: %(short)s/there, mode: "0750"}
    - fetch: {src: %(short)s/there, dest: %(short)s/fetched, flat: true}
"""


@row(ROWS, "Ansible itself: a playbook over one connection, with and without pipelining")
def ansible_playbook(way: Way) -> None:
    program = shutil.which("ansible-playbook", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        raise Missing("ansible-playbook is not installed here")
    content = os.urandom(300_000)
    (way.short / "sent").write_bytes(content)
    (way.short / "playbook.yml").write_text(_PLAYBOOK % {"short": way.short})
    (way.short / "hosts").write_text(
        f"[pods]\n{way.host} ansible_user={way.login} ansible_python_interpreter={sys.executable}\n"
    )
    env = {
        "ANSIBLE_HOME": str(way.short / "ansible"),
        "ANSIBLE_REMOTE_TMP": str(way.short / "remote"),  # as docs/users.md says: ~alice is nobody's home in a pod
        "ANSIBLE_SSH_COMMON_ARGS": way.remote_shell.partition(" ")[2],
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(way.short / "cp"),
        "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=5s",
        "LC_ALL": "C.UTF-8",
    }
    done = _run(way, program, "-i", str(way.short / "hosts"), str(way.short / "playbook.yml"), env=env)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert (way.short / "there").read_bytes() == content == (way.short / "fetched").read_bytes()
    assert (way.short / "there").stat().st_mode & 0o777 == 0o750
