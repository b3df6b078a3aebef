"""Why: the one line that hubssh writes into somebody's own configuration has to be first, and to leave no trace."""

from __future__ import annotations

import ntpath
import os
from pathlib import Path

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import Answer, Machine, Store, Trouble
from tests.client.makers import NOW, Pretended, site, store


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


@pytest.mark.parametrize("among", ["Include {0}", 'include  "{0}"', "Include ~/.ssh/work {0}", 'Include work "{0}"  '])
def test_the_line_counts_as_other_programs_write_it(tmp_path: Path, among: str) -> None:
    made = store(tmp_path)
    own = f"# mine\n{among.format(made.config)}\nHost work\n"
    (tmp_path / "config").write_text(own)
    hubssh.configure(made)
    assert (tmp_path / "config").read_text() == own
    (tmp_path / "config").write_text(own.replace("/hubssh/config", "/hubssh/config2"))
    assert not hubssh.is_included(made)
    (tmp_path / "config").write_text('Include ""\n')
    assert not hubssh.is_included(made)
    (tmp_path / "config").write_text(f"Host work\n{own}")
    assert not hubssh.is_included(made)


class TestAConfigurationThatAnotherProgramKeeps:
    """As home-manager does: a link into a folder where nobody else may write."""

    @pytest.fixture
    def kept(self, tmp_path: Path) -> Path:
        """No file can be made beside it, whoever tries: the name would be too long."""
        (tmp_path / ".ssh").mkdir()
        kept = tmp_path / ("kept" * 62)
        kept.write_text("Host work\n")
        (tmp_path / ".ssh" / "config").symlink_to(kept)
        return kept

    @pytest.fixture
    def service(self, monkeypatch: pytest.MonkeyPatch) -> Pretended:
        listed = {"login": "alice+gpu", "owner": "alice", "name": "gpu", "state": "running", "ssh": True}
        return Pretended(servers=Answer(200, {"servers": [listed]}, "", False, None)).stand_in(monkeypatch)

    def run(self, kept: Path, *words: str) -> int:
        return hubssh.main([words[0], "--ssh-dir", str(kept.parent / ".ssh"), *words[1:]], Machine(clock=lambda: NOW))

    def logged_in(self, kept: Path) -> Store:
        assert self.run(kept, "login", "--no-browser", "--no-agent", "https://ssh.example.org") == 0
        return Store(Machine(clock=lambda: NOW), str(kept.parent / ".ssh"))

    def test_a_login_is_done_with_one_click_and_ends_with_the_line_to_add(
        self, kept: Path, service: Pretended, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = self.logged_in(kept)
        assert len(service.forms) == 1
        assert Path(made.certificate_file(made.known())).exists()
        assert "Host gpu.hub\n" in Path(made.config).read_text()
        assert kept.read_text() == "Host work\n"
        said = capsys.readouterr()
        assert "Now type:\n" in said.out
        last = said.err.splitlines()[-1]
        assert last.startswith(f"hubssh: {made.ssh}/config cannot be written (")
        assert last.endswith(f'): put this line first in it: Include "{made.config}"')

    def test_other_commands_answer_first_and_say_the_same(
        self, kept: Path, service: Pretended, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = self.logged_in(kept)
        service.changed["certificates_renew"] = service.ask("POST", "/device/token")
        last = capsys.readouterr().err.splitlines()[-1]
        for command, answer in (("list", "alice/gpu"), ("renew", "Now type:")):
            assert self.run(kept, command) == 0
            said = capsys.readouterr()
            assert answer in said.out
            assert said.err.splitlines() == [last]
        with pytest.raises(Trouble) as found:
            hubssh._configuration(made, made.known())
        assert f'put this line first in it: Include "{made.config}"' in found.value.cure

    def test_once_the_line_is_there_nothing_more_is_said(
        self, kept: Path, service: Pretended, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = self.logged_in(kept)
        kept.write_text(f"Include ~/.ssh/work {made.config}\nHost work\n")
        capsys.readouterr()
        assert self.run(kept, "list") == 0
        assert capsys.readouterr().err == ""
        assert hubssh._configuration(made, made.known()).state == "ok"
        assert len(service.forms) == 1

    def test_a_logout_removes_the_rest_and_says_which_line_is_left(
        self, kept: Path, service: Pretended, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = self.logged_in(kept)
        kept.write_text(f"{hubssh._include_line(made)}\nHost work\n")
        service.changed["certificates"] = Answer(200, {"certificates": []}, "", False, None)
        self.run(kept, "logout")
        assert capsys.readouterr().err.endswith(f"): take this line out of it: {hubssh._include_line(made)}\n")
        assert [path.name for path in (kept.parent / ".ssh").iterdir()] == ["config"]


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
