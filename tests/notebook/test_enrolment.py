"""Why: who gets in is decided by the enrolment, and it must survive an api that is away, slow, wrong or forgetful."""

from __future__ import annotations

import base64
import json

import pytest

from tests.support.enrolment_api import HOST_NAME, PRINCIPAL, Canned, EnrolmentApi, make_key
from tests.support.notebook import ACCOUNT, TOKEN, Notebook


def test_a_certificate_for_this_instance_gets_in_and_sees_the_server_environment(notebook_anywhere: Notebook) -> None:
    notebook_anywhere.start()
    key = notebook_anywhere.ready().certificate()
    done = notebook_anywhere.ssh(key, "echo $JUPYTERHUB_USER/$JUPYTERHUB_SERVER_NAME; pwd")
    assert done.stdout.decode().splitlines() == ["alice/gpu", str(notebook_anywhere.home)]
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_enrolment_says_key_ports_and_account_and_nothing_else(notebook: Notebook) -> None:
    notebook.start()
    asked = notebook.ready().api.wait_for("POST", "/enrolments")
    assert asked.authorization == f"token {TOKEN}"
    assert asked.body == {
        "host_key": " ".join((notebook.storage / "host_key.pub").read_text().split()[:2]),
        "ssh_port": notebook.ssh_port,
        "key_port": notebook.key_port,
        "unix_user": ACCOUNT.pw_name,
    }


def test_only_the_principal_of_this_instance_gets_in(notebook: Notebook) -> None:
    notebook.start()
    notebook.ready()
    others = ["alice/gpu:1763000000000000", "alice/:1763000000000001", "bob/gpu:1763000000000001", "alice", "root"]
    for number, principal in enumerate(others):
        refused = notebook.ssh(notebook.certificate(f"other{number}", principals=principal), "echo in")
        assert (refused.returncode, refused.stdout) == (255, b"")
        assert b"Permission denied" in refused.stderr


def test_the_hop_authority_is_trusted_and_others_are_not(notebook: Notebook) -> None:
    notebook.start()
    notebook.ready()
    assert notebook.ssh(notebook.certificate("hop", ca="hop_ca"), "echo in").stdout == b"in\n"
    assert notebook.ssh(notebook.certificate("host", ca="host_ca"), "echo in").returncode == 255


def test_a_key_of_authorized_keys_gets_in_from_the_moment_it_is_written(notebook_anywhere: Notebook) -> None:
    notebook_anywhere.start()
    notebook_anywhere.ready()
    key = notebook_anywhere.raw_key()
    assert notebook_anywhere.ssh(key, "echo in").stdout == b"in\n"
    notebook_anywhere.authorized_keys.write_text("")
    assert notebook_anywhere.ssh(key, "echo in").returncode == 255


def test_an_api_that_is_down_at_the_start_is_tried_until_it_is_up(notebook: Notebook) -> None:
    notebook.api.stop()
    notebook.start()
    notebook.wait_for_line("Not enrolled yet, trying again: The api does not answer")
    notebook.api.start()
    assert notebook.ready().ssh(notebook.certificate(), "echo in").stdout == b"in\n"


def test_a_server_that_the_hub_does_not_know_yet_is_enrolled_a_little_later(notebook: Notebook) -> None:
    notebook.api.next_answers = [
        Canned.refusal(409, "server_not_running", "Your server is not running."),
        Canned.refusal(503, "hub_unavailable", "JupyterHub does not answer.", Retry_After="1"),
        Canned(500, b"<html>"),
    ]
    notebook.start()
    notebook.ready()
    assert "Your server is not running." in notebook.log
    assert "JupyterHub does not answer." in notebook.log
    assert "The api answered with status 500." in notebook.log


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (Canned.refusal(401, "invalid_token", "JupyterHub does not know this token."), "does not know this token"),
        (Canned.refusal(403, "not_permitted", "This token is not a server's own."), "not a server's own"),
        (Canned.refusal(409, "host_key_conflict"), "stop the server in JupyterHub and start it again"),
    ],
)
def test_a_lasting_refusal_is_said_in_a_sentence_and_no_sshd_runs(
    notebook: Notebook, refusal: Canned, sentence: str
) -> None:
    notebook.api.next_answers = [refusal]
    notebook.start()
    assert sentence in notebook.wait_for_line("Not enrolled: ").string
    assert not (notebook.storage / "sshd_config").exists()


def _certificate_for_another_key(api: EnrolmentApi) -> str:
    return api.sign_host(make_key(api.folder / "another").with_suffix(".pub").read_text().strip())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"principal": f"{PRINCIPAL}\nroot"}, "principal"),
        ({"principal": 'command="x" alice'}, "principal"),
        ({"principal": ""}, "principal"),
        ({"host_certificate": "ssh-ed25519 AAAA"}, "host_certificate"),
        ({"host_certificate": 7}, "host_certificate"),
        ({"host_certificate": "ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(b"\0\0").decode()}, "certificate"),
        ({"user_ca": []}, "user_ca"),
        ({"user_ca": "ssh-ed25519 AAAA"}, "user_ca"),
        ({"hop_ca": ["not a key"]}, "hop_ca"),
        ({"valid_before": "tomorrow"}, "valid_before"),
        ({"valid_before": True}, "valid_before"),
        ({"epoch": None}, "epoch"),
        ({"withdraw_token": "two\nlines"}, "withdraw_token"),
    ],
)
def test_an_answer_that_does_not_keep_to_the_protocol_is_not_believed(
    notebook: Notebook, change: dict[str, object], field: str
) -> None:
    notebook.api.change = change
    notebook.start()
    assert field in notebook.wait_for_line("Not enrolled yet, trying again: The api's answer cannot be used").string
    notebook.api.change = {}
    notebook.ready()


def test_a_certificate_for_another_key_or_for_users_is_not_believed(notebook: Notebook) -> None:
    notebook.api.change = {"host_certificate": _certificate_for_another_key(notebook.api)}
    notebook.start()
    notebook.wait_for_line("'host_certificate' is for another key")


@pytest.mark.parametrize(
    "answer",
    [
        Canned(200, b"x" * 400_000),
        Canned(200, b"[" * 100_000),
        Canned(200, json.dumps([1]).encode()),
        Canned(302, b"", {"Location": "/elsewhere"}),
    ],
)
def test_an_answer_that_is_no_answer_costs_one_try(notebook: Notebook, answer: Canned) -> None:
    notebook.api.next_answers = [answer]
    notebook.start()
    notebook.wait_for_line("Not enrolled")
    assert all(asked.path != "/elsewhere" for asked in notebook.api.asked)


def test_a_lost_database_is_noticed_and_the_server_enrols_again_with_the_same_key(notebook: Notebook) -> None:
    notebook.start()
    first = notebook.ready().api.wait_for("POST", "/enrolments")
    notebook.api.epoch = "bb11"
    assert notebook.api.wait_for("POST", "/enrolments", 2) == first
    notebook.ready(2)
    assert notebook.ssh(notebook.certificate(), "echo in").stdout == b"in\n"


def test_a_new_user_authority_is_trusted_after_the_next_enrolment(notebook: Notebook) -> None:
    notebook.start()
    notebook.ready()
    make_key(notebook.api.folder / "next_ca")
    key = notebook.certificate("next", ca="next_ca")
    assert notebook.ssh(key, "echo in").returncode == 255
    notebook.api.change = {"user_ca": [(notebook.api.folder / "next_ca.pub").read_text().strip()]}
    notebook.api.epoch = "bb11"
    # The certificate is new too, so sshd starts anew: its second "listening" says that the files are in place.
    notebook.ready(2)
    assert notebook.ssh(key, "echo in").stdout == b"in\n"


def test_a_renewed_host_certificate_is_shown_and_running_sessions_go_on(notebook_anywhere: Notebook) -> None:
    notebook = notebook_anywhere
    notebook.api.lifetime = 12
    notebook.start()
    key = notebook.ready().certificate()
    with notebook.session(key, "cat") as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(b"before\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"before\n"
        notebook.api.lifetime = 3600
        notebook.ready(2)
        done = notebook.ssh(key, "echo in", options=["-v", "-o", "LogLevel=DEBUG1"])
        assert done.stdout == b"in\n"
        assert b"serial 2 ID" in done.stderr.partition(b"Server host certificate:")[2].split(b"\n")[0]
        session.stdin.write(b"after\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"after\n"


def test_the_host_key_prompt_is_replaced_by_one_line_for_the_authority(notebook: Notebook) -> None:
    notebook.start()
    key = notebook.ready().certificate()
    (notebook.folder / "known_hosts").write_text("")
    assert b"Host key verification failed" in notebook.ssh(key, "true").stderr
    (notebook.folder / "known_hosts").write_text(notebook.api.known_hosts)
    assert notebook.ssh(key, "true", options=["-o", f"HostKeyAlias={HOST_NAME}"]).returncode == 0
