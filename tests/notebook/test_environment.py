"""Why: an SSH session must see what a notebook terminal sees, whatever the variables hold, and no secret may leak."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.support.notebook import TOKEN, Notebook, command_line, descendants, texts

ODD = {
    b"BLANKS": b"  two  words ",
    b"QUOTES": b'it\'s "quoted" \'"',
    b"BACKSLASHES": b"\\ \\\\ \\n end\\",
    b"EQUALS": b"a=b=c",
    b"EMPTY": b"",
    b"HASH": b"# no comment",
    b"PERCENT": b"%h %% %u",
    b"DOLLAR": b"$HOME ${HOME} `id` $(id)",
    b"TAB": b"\ttab\r\x01\x7f",
    b"BYTES": b"\xff\xfe\xc3\xa9",
    b"CONDA_PREFIX": b"/opt/conda",
}


def _environment(notebook: Notebook) -> dict[bytes, bytes]:
    output = notebook.ssh(notebook.certificate(), "env -0").stdout
    return dict(line.split(b"=", 1) for line in output.split(b"\0") if line)


def test_odd_values_arrive_as_they_are(notebook_anywhere: Notebook) -> None:
    notebook_anywhere.environment |= texts(ODD)
    notebook_anywhere.start()
    seen = _environment(notebook_anywhere.ready())
    assert {name: seen.get(name) for name in ODD} == ODD
    assert seen[b"HOME"] == str(notebook_anywhere.home).encode()


def test_path_is_the_servers(notebook: Notebook) -> None:
    notebook.environment["PATH"] = f"/opt/conda/bin:{notebook.environment['PATH']}"
    notebook.start()
    assert _environment(notebook.ready())[b"PATH"] == notebook.environment["PATH"].encode()


def test_what_describes_the_servers_own_session_is_not_carried(notebook: Notebook) -> None:
    noise = {"TERM": "dumb", "DISPLAY": ":7", "SUDO_USER": "x", "SSH_AUTH_SOCK": "/x", "TMUX": "x", "OLDPWD": "/x"}
    notebook.environment |= noise
    notebook.start()
    seen = _environment(notebook.ready())
    assert not set(noise) & {name.decode() for name in seen}
    assert not [name for name in seen if name.startswith((b"SSH_BASTION_", b"SSH_USER_AUTH", b"SSH_ORIGINAL"))]


def test_a_value_with_a_line_break_is_left_out_and_named_without_its_value(notebook: Notebook) -> None:
    notebook.environment |= {"PRIVATE_NOTE": "first line\nPermitRootLogin yes"}
    notebook.start()
    assert b"PRIVATE_NOTE" not in _environment(notebook.ready())
    assert "Missing in SSH sessions, because it holds a line break: PRIVATE_NOTE." in notebook.log
    assert "first line" not in notebook.log


def test_an_enormous_environment_loses_its_largest_variables_and_sessions_work(notebook: Notebook) -> None:
    notebook.environment |= {f"LARGE{number}": "x" * 50_000 for number in range(8)} | {"LARGEST": "y" * 131_000}
    notebook.start()
    seen = _environment(notebook.ready())
    assert seen[b"JUPYTERHUB_USER"] == b"alice"
    assert b"LARGEST" not in seen
    assert len([name for name in seen if name.startswith(b"LARGE")]) == 3
    assert "because it is too large: LARGEST." in notebook.log


def test_a_namespace_of_hundreds_of_services_costs_the_service_links_and_not_the_session(notebook: Notebook) -> None:
    for number in range(300):
        prefix = f"SVC{number}"
        notebook.environment |= {f"{prefix}_SERVICE_HOST": "10.0.0.1", f"{prefix}_SERVICE_PORT": "80"}
        notebook.environment |= {f"{prefix}_PORT_80_TCP": "x", f"{prefix}_PORT_80_TCP_ADDR": "10.0.0.1"}
    notebook.environment |= {f"OURS_{number}": "a somewhat longer value" for number in range(500)}
    notebook.start()
    done = notebook.ready().ssh(notebook.certificate(), "env", options=["-o", "SetEnv=LC_ALL=C LC_TIME=C"])
    names = [line.split("=")[0] for line in done.stdout.decode().splitlines()]
    assert len([name for name in names if name.startswith("OURS_")]) == 500
    assert len(names) > 900


def test_the_token_is_in_sessions_and_in_private_files_and_nowhere_else(notebook: Notebook) -> None:
    notebook.start()
    key = notebook.ready().certificate()
    with notebook.session(key, "echo; cat") as session:
        assert session.stdout is not None
        session.stdout.readline()
        pids = [notebook.pid, *descendants(notebook.pid)]
        assert len(pids) > 3
        arguments = b" ".join(command_line(pid) for pid in pids)
        assert TOKEN.encode() not in arguments
        assert b"withdraw-secret" not in arguments
    assert notebook.ssh(key, "printenv JUPYTERHUB_API_TOKEN").stdout == f"{TOKEN}\n".encode()
    assert stat.S_IMODE(notebook.storage.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in notebook.storage.iterdir()}
    assert modes.pop("host_key.pub") == 0o644
    assert set(modes.values()) == {0o600}
    notebook.end()
    assert TOKEN not in notebook.log
    assert "withdraw-secret" not in notebook.log


def test_sessions_have_the_servers_umask_and_not_the_supervisors(notebook: Notebook) -> None:
    notebook.prefix = ("sh", "-c", 'umask 027; exec "$@"', "sh")
    notebook.start()
    assert notebook.ready().ssh(notebook.certificate(), "umask").stdout == b"0027\n"


def test_the_storage_folder_is_private_to_begin_with(notebook: Notebook, tmp_path: Path) -> None:
    # A folder that others may enter is not trusted as a runtime folder, so nothing of ours appears in it.
    notebook.runtime.chmod(0o755)
    notebook.start()
    notebook.ready()
    assert list(notebook.runtime.iterdir()) == []
