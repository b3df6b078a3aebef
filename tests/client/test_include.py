"""Why: the one line that hubssh writes into somebody's own configuration has to be first, and to leave no trace."""

from __future__ import annotations

import ntpath
import os
from pathlib import Path

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import Machine, Store, Trouble
from tests.client.makers import NOW, site, store


class TestTheOneLineInTheOwnConfiguration:
    """`Include` has to stand before every Host; everything else in that file is somebody's own work."""

    OWN = "# mine\nHost work\n    HostName work.example.org\n\nHost *\n    ForwardAgent no\n"

    def test_it_is_put_at_the_top_once_and_taken_out_without_a_trace(self, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text(self.OWN)
        path.chmod(0o644)
        made = store(tmp_path)
        hubssh.configure(made)
        once = path.read_text()
        hubssh.configure(made)
        assert path.read_text() == once
        assert once.endswith(self.OWN)
        assert hubssh.is_included(made)
        assert path.stat().st_mode & 0o777 == 0o644
        hubssh.exclude(made)
        assert path.read_text() == self.OWN

    @pytest.mark.parametrize(
        "own",
        [
            "# für Jörg\nHost w\n".encode("latin-1"),
            b"# \xff\x80\r\nHost w\r\n",
            b"Host w # no end",
            b"\x0c\n\x85\nHost w\n",
            b"\n\nHost w\n",
        ],
    )
    def test_it_is_not_read_as_more_than_bytes(self, tmp_path: Path, own: bytes) -> None:
        path = tmp_path / "config"
        path.write_bytes(own)
        made = store(tmp_path)
        hubssh.configure(made)
        assert path.read_bytes().endswith(own)
        hubssh.configure(made)
        hubssh.exclude(made)
        assert path.read_bytes() == own

    def test_the_mark_that_notepad_puts_first_stays_first(self, tmp_path: Path) -> None:
        """ssh on Windows passes over it there, and nowhere else."""
        path, own = tmp_path / "config", b"\xef\xbb\xbfHost w\n"
        path.write_bytes(own)
        made = store(tmp_path)
        hubssh.configure(made)
        assert hubssh.is_included(made)
        assert path.read_bytes().count(own[:3]) == 1
        assert path.read_bytes().startswith(own[:3] + b"# hubssh")
        hubssh.exclude(made)
        assert path.read_bytes() == own

    def test_below_a_host_it_counts_for_that_host_only_so_it_is_moved(self, tmp_path: Path) -> None:
        made = store(tmp_path)
        (tmp_path / "config").write_text(f'{self.OWN}Include {made.config}\nInclude "{made.config}"\n')
        assert not hubssh.is_included(made)
        hubssh.configure(made)
        assert hubssh.is_included(made)
        assert (tmp_path / "config").read_text().count(f'Include "{made.config}"') == 1

    def test_a_file_that_was_not_there_is_gone_again(self, tmp_path: Path) -> None:
        made = store(tmp_path)
        hubssh.configure(made)
        assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600
        hubssh.exclude(made)
        assert not (tmp_path / "config").exists()

    def test_a_link_to_dot_files_elsewhere_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "dot-config").write_text(self.OWN)
        (tmp_path / "config").symlink_to("dot-config")
        made = store(tmp_path)
        hubssh.configure(made)
        assert (tmp_path / "config").is_symlink()
        assert (tmp_path / "dot-config").read_text().endswith(self.OWN)
        hubssh.exclude(made)
        assert (tmp_path / "dot-config").read_text() == self.OWN


def on_windows(monkeypatch: pytest.MonkeyPatch, folder: str) -> Store:
    """What `--ssh-dir` makes there."""
    with monkeypatch.context() as there:
        there.setattr(os, "path", ntpath)
        return Store(Machine(windows=True, clock=lambda: NOW), folder)


@pytest.mark.parametrize("folder", ["D:\\my ssh", "D:/my ssh"])
def test_on_windows_another_folder_is_written_with_slashes(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """It could not be run here: there is no Windows. What is tested is the text."""
    made = on_windows(monkeypatch, folder)
    hubssh._demand_nameable(made)
    assert hubssh._include_line(made) == 'Include "D:/my ssh/hubssh/config"'
    text = hubssh.config_text(made, [site(key="D:\\my ssh\\hubssh\\ssh.example.org\\id_ed25519")])
    assert 'IdentityFile "D:/my ssh/hubssh/ssh.example.org/id_ed25519"' in text
    assert '"cd /d D:\\my ssh\\hubssh&& stops.cmd host:%n"' in text


@pytest.mark.parametrize("folder", ["D:\\R&D", "D:\\a^b", "D:\\a%b", "D:\\a'b"])
def test_on_windows_a_folder_that_its_shell_would_take_for_more_is_refused(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    with pytest.raises(Trouble, match="cannot hold"):
        hubssh._demand_nameable(on_windows(monkeypatch, folder))
