"""Why: scp in both protocols and sftp are what people copy with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bastion.relay.doors import Door, Way, run


@pytest.mark.parametrize("protocol", [[], ["-O"]], ids=["sftp protocol", "scp protocol"])
async def test_scp_copies_a_tree_there_and_back(door: Door, tmp_path: Path, protocol: list[str]) -> None:
    way = Way.through(door)
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "b c").write_bytes(os.urandom(300_000))
    (here / "empty").write_bytes(b"")
    (here / "run").write_bytes(b"#!/bin/sh\n")
    (here / "run").chmod(0o750)
    there.mkdir()
    back.mkdir()
    sent = await run(["scp", *protocol, *way.options, "-rp", str(here), f"127.0.0.1:{there}/"])
    fetched = await run(["scp", *protocol, *way.options, "-rp", f"127.0.0.1:{there}/here", f"{back}/"])
    assert (sent.status, fetched.status, sent.err, fetched.err) == (0, 0, b"", b"")
    for tree in (there / "here", back / "here"):
        assert _tree(tree) == _tree(here)


async def test_an_sftp_batch_runs_to_its_end(door: Door, tmp_path: Path) -> None:
    way = Way.through(door)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(2_000_000))
    batch = (
        f"mkdir {tmp_path}/made\nput {source} {tmp_path}/made/x\nrename {tmp_path}/made/x {target}\nls -l {target}\n"
    )
    answer = await run(["sftp", *way.options, "-b", "-", "127.0.0.1"], stdin=batch.encode())
    assert answer.status == 0, answer
    assert target.read_bytes() == source.read_bytes()


async def test_a_missing_file_fails_with_the_servers_own_words(door: Door) -> None:
    answer = await run(["scp", *Way.through(door).options, "127.0.0.1:/no/such", "/dev/null"])
    assert answer.status == 1
    assert b"No such file" in answer.err


def _tree(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    }
