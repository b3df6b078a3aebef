"""Why: people copy these lines as they stand, so a shell and ssh must read them as they are meant."""

import shlex

import asyncssh
import pytest

from api.commands import Door, certificate_file_name, commands_for, in_words
from ca.keys import parse_public_key
from ca.names import Server

DOOR = Door(host="ssh.example.org", port=2222, zone="hub")


def test_the_ordinary_port_is_left_out() -> None:
    commands = commands_for(Door(host="ssh.example.org", port=22, zone="hub"), Server("alice"), "jovyan")
    assert commands.ssh == "ssh alice@ssh.example.org"
    assert commands.upload == "scp data.csv alice@ssh.example.org:"
    assert commands.download == "scp alice@ssh.example.org:results.csv ."
    assert commands.jump == "ssh -J jump@ssh.example.org jovyan@alice.hub"


def test_another_port_stands_where_each_program_wants_it() -> None:
    commands = commands_for(DOOR, Server("alice", "gpu"), "jovyan")
    assert commands.ssh == "ssh -p 2222 alice+gpu@ssh.example.org"
    assert commands.upload == "scp -P 2222 data.csv alice+gpu@ssh.example.org:"
    assert commands.jump == "ssh -J jump@ssh.example.org:2222 jovyan@alice+gpu.hub"


def test_without_a_known_unix_user_there_is_no_jump_command() -> None:
    assert commands_for(DOOR, Server("alice"), None).jump is None


@pytest.mark.parametrize("owner", ["Bob.Smith@example.org", "$(reboot)", "a;b", "ünï", "a b", "'", "-oProxyCommand=x"])
def test_no_name_means_anything_to_a_shell(owner: str) -> None:
    server = Server(owner, "x`y")
    command = commands_for(DOOR, server, "jovyan").ssh
    assert shlex.split(command) == ["ssh", "-p", "2222", f"{server.login}@ssh.example.org"]
    assert not set(command) & set("$`;|&<>()'\"\\*?!# \t\n") - {" "}


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        ("ssh-ed25519", "id_ed25519-cert.pub"),
        ("ecdsa-sha2-nistp384", "id_ecdsa-cert.pub"),
        ("ssh-rsa", "id_rsa-cert.pub"),
    ],
)
def test_the_file_has_the_name_that_ssh_looks_for(algorithm: str, name: str) -> None:
    options = {"key_size": 3072} if algorithm == "ssh-rsa" else {}
    key = asyncssh.generate_private_key(algorithm, **options)
    assert certificate_file_name(parse_public_key(key.export_public_key())) == name


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (3600, "1 hour"),
        (12 * 3600, "12 hours"),
        (3661, "1 hour 1 minute"),
        (90_000, "1 day 1 hour"),
        (7 * 86400, "7 days"),
    ],
)
def test_lengths_of_time_are_said_as_people_do(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
