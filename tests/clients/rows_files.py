"""Why: most of what people move are files, with five programs that each use SSH in a way of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.clients.openssh import Missing, Way, need
from tests.clients.rows_sessions import assert_same, contents, tree
from tests.clients.table import Row, row

ROWS: list[Row] = []


def _scp(way: Way, *flags: str) -> None:
    source, there, back = way.short / "the source", way.short / "there", way.short / "back"
    tree(source)
    sent = way.run("scp", "-q", "-p", "-r", *flags, str(source), f"{way.target}:{there}")
    assert (sent.returncode, sent.stderr) == (0, b""), sent
    assert_same(source, there)
    got = way.run("scp", "-q", "-p", "-r", *flags, f"{way.target}:{there}", str(back))
    assert (got.returncode, got.stderr) == (0, b""), got
    assert_same(source, back)
    gone = way.run("scp", "-q", *flags, f"{way.target}:{way.short}/not-there", str(back))
    assert gone.returncode == 1
    assert b"No such file" in gone.stderr


@row(ROWS, "scp over sftp: folders, awkward names, modes and times", jump=True, newer=True)
def scp(way: Way) -> None:
    _scp(way, *(["-s"] if way.openssh.version < (9, 0) else []))


@row(ROWS, "scp -O, the old protocol: folders, awkward names, modes and times", jump=True, newer=True)
def scp_old(way: Way) -> None:
    _scp(way, "-O")


@row(ROWS, "sftp batch: everything that changes something")
def sftp(way: Way) -> None:
    source, there, back = way.short / "source", way.short / "there", way.short / "back"
    tree(source)
    big = way.short / "big"
    big.write_bytes(os.urandom(20_000_000))
    half = way.short / "half"
    half.write_bytes(big.read_bytes()[:7_000_000])
    batch = f"""
    mkdir {there}
    put -R -p {source}/. {there}
    get -R -p {there}/. {back}
    put {big} {there}/big
    get {there}/big {way.short}/big-back
    rename {there}/big {there}/renamed
    ln -s renamed {there}/link
    ln {there}/renamed {there}/hard
    chmod 600 {there}/renamed
    df {there}
    ls -la {there}
    rm {there}/link
    rm {there}/hard
    put {half} {there}/part
    reput {big} {there}/part
    """
    done = way.run("sftp", "-b", "-", way.target, data=batch.encode())
    assert (done.returncode, done.stderr) == (0, b""), done
    assert (way.short / "big-back").read_bytes() == big.read_bytes() == (there / "renamed").read_bytes()
    assert (there / "renamed").stat().st_mode & 0o777 == 0o600
    assert (there / "part").read_bytes() == big.read_bytes()
    (there / "part").unlink()
    (there / "renamed").unlink()
    assert_same(source, there)
    assert_same(source, back)


@row(ROWS, "sftp of a thousand small files, with many requests on their way")
def sftp_many(way: Way) -> None:
    source, there = way.short / "source", way.short / "there"
    _files(source, 1000)
    done = way.run(
        "sftp",
        "-R",
        "128",
        "-b",
        "-",
        way.target,
        data=f"mkdir {there}\nput -R {source}/. {there}\n".encode(),
    )
    assert done.returncode == 0, done
    assert contents(there) == contents(source)


@row(ROWS, "rsync, both ways, with delete and a second run that sends nothing", jump=True)
def rsync(way: Way) -> None:
    need("rsync")
    source, there, back = way.short / "source", way.short / "there", way.short / "back"
    tree(source, 300)

    def run(*arguments: str) -> bytes:
        command = ["rsync", "-a", "--delete", "-z", "-i", "-e", way.remote_shell, *arguments]
        done = subprocess.run(command, env=way.environment(), capture_output=True, timeout=90, check=False)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout

    assert run(f"{source}/", f"{way.target}:{there}/").count(b"\n") > 300
    assert_same(source, there)
    (there / "stray").write_text("to be deleted")
    (there / "runs").write_text("changed there")
    assert run(f"{source}/", f"{way.target}:{there}/").count(b"\n") <= 3
    assert_same(source, there)
    assert run(f"{source}/", f"{way.target}:{there}/") == b""
    run("--partial", "--whole-file", f"{way.target}:{there}/", f"{back}/")
    assert_same(source, back)


@row(ROWS, "git: push and clone two thousand files")
def git(way: Way) -> None:
    need("git")
    source, there, back = way.short / "source", way.short / "there.git", way.short / "back"
    _files(source, 2000)
    env = {
        "GIT_SSH_COMMAND": way.remote_shell,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "alice@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    run = _runner(way, env)
    run("git", "init", "-q", "-b", "main", str(source))
    run("git", "-C", str(source), "add", ".")
    run("git", "-C", str(source), "commit", "-q", "-m", "two thousand files")
    assert way.says(f"git init -q --bare -b main {there}") == b""
    url = f"{way.target}:{there}"
    run("git", "-C", str(source), "push", "-q", url, "main")
    run("git", "clone", "-q", url, str(back))
    run("git", "-C", str(back), "fetch", "-q", "--all")
    for folder in (source, back):
        subprocess.run(["rm", "-rf", str(folder / ".git")], check=True)
    assert contents(back) == contents(source)


@row(ROWS, "sshfs: write, read, list and move in a mounted folder", jump=True)
def sshfs(way: Way) -> None:
    need("sshfs", "fusermount3")
    there, mount = way.short / "there", way.short / "mount"
    tree(there)
    mount.mkdir()
    given = [f"-o{word}" for word in _pairs(way.options)]
    command = [
        "sshfs",
        f"{way.target}:{there}",
        str(mount),
        *given,
        "-o",
        f"ssh_command={way.openssh.program('ssh')}",
    ]
    done = subprocess.run(command, env=way.environment(), capture_output=True, timeout=60, check=False)
    if done.returncode != 0 and b"fuse" in done.stderr.lower():
        raise Missing(f"no FUSE here: {done.stderr.decode(errors='replace').strip()}")
    assert done.returncode == 0, done
    try:
        assert contents(mount) == contents(there)
        content = os.urandom(5_000_000)
        (mount / "new").write_bytes(content)
        (mount / "new").rename(mount / "moved")
        assert (there / "moved").read_bytes() == content == (mount / "moved").read_bytes()
        (mount / "moved").unlink()
        assert not (there / "moved").exists()
    finally:
        subprocess.run(["fusermount3", "-u", str(mount)], check=True, timeout=60)


def _pairs(options: list[str]) -> list[str]:
    """ssh's options as sshfs takes them, where a comma begins the next."""
    named = {"-i": "IdentityFile=", "-o": ""}
    pairs = zip(options[::2], options[1::2], strict=True)
    found = [named[flag] + value for flag, value in pairs if flag != "-F"]
    return [one.replace(",", "\\,") for one in found]


def _runner(way: Way, env: Mapping[str, str]) -> Callable[..., None]:
    def run(*command: str) -> None:
        done = subprocess.run(command, env=way.environment(env), capture_output=True, timeout=90, check=False)
        assert done.returncode == 0, done

    return run


def _files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number % 20}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number % 4096))
