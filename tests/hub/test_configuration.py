"""Why: `configure` is added to configurations that others wrote; it must add to them and take nothing away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import Release, binaries

TOKEN = "t" * 32
NO_CLUSTER = {
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
    "current-context": "none",
}
Ask = Callable[[str, Any], Any]


@pytest.fixture(scope="module")
def ask(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Runs a function of `deploy/hub` in the environment of the release under test."""
    cluster = tmp_path_factory.mktemp("cluster") / "kubeconfig"  # KubeSpawner wants to know one; it is not asked
    cluster.write_text(json.dumps(NO_CLUSTER))
    with subprocess.Popen(
        [binaries(hub_release) / "python", Path(__file__).with_name("configured.py")],
        env={"PATH": os.defpath, "KUBECONFIG": str(cluster)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, answers = process.stdin, process.stdout

        def run(function: str, argument: Any) -> Any:
            print(json.dumps([function, argument]), file=to, flush=True)
            return json.loads(answers.readline())

        yield run


@pytest.fixture
def configured(ask: Ask) -> Any:
    """What `configure` makes of a configuration."""

    def run(
        config: dict[str, Any] | None = None,
        appended: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        **arguments: Any,
    ) -> Any:
        environment = {"SSH_BASTION_HUB_TOKEN": TOKEN} if environment is None else environment
        given = {"config": config or {}, "appended": appended or {}, "environment": environment}
        return ask("configure", {**given, "arguments": arguments})

    return run


USER_SCOPES = {"access:services!service=ssh", "custom:ssh:connect!user"}


def granted(result: dict[str, Any]) -> set[str]:
    """The scopes that users get in addition to their own, wherever the release wants them written."""
    roles = [role for role in result["roles"] if role["name"] == "user"]
    return set(result["scopes"]) | {scope for role in roles for scope in role.get("scopes", ())}


def test_an_empty_configuration_gets_the_service_and_the_least_that_it_needs(configured: Any) -> None:
    result = configured()
    (service,) = result["services"]
    assert service["api_token"] == TOKEN
    assert service["oauth_client_id"] == "service-ssh"
    assert service["oauth_redirect_uri"] == "https://ssh.example.org/oauth_callback"
    (role,) = [role for role in result["roles"] if role.get("services") == ["ssh"]]
    assert role["scopes"] == ["list:users", "read:servers", "read:users", "read:users:shares", "users:activity"]
    assert granted(result) - {"self"} == USER_SCOPES
    assert result["custom_scopes"] == ["custom:ssh:connect"]
    assert result["spawner"][2] == "LocalProcessSpawner"


def test_what_was_there_stays(configured: Any) -> None:
    result = configured(
        config={
            "services": [{"name": "theirs"}],
            "load_roles": [{"name": "theirs", "services": ["theirs"], "scopes": ["list:users"]}],
            "custom_scopes": {"custom:theirs:read": {"description": "Read."}},
            "spawner_class": "simple",
        }
    )
    assert [service["name"] for service in result["services"]] == ["theirs", "ssh"]
    assert "theirs" in [role["name"] for role in result["roles"]]
    assert result["custom_scopes"] == ["custom:ssh:connect", "custom:theirs:read"]
    assert result["spawner"][2] == "SimpleLocalProcessSpawner"


def test_what_was_only_added_to_the_defaults_stays_too(configured: Any) -> None:
    result = configured(appended={"services": [{"name": "theirs"}], "load_roles": [{"name": "r", "scopes": []}]})
    assert [service["name"] for service in result["services"]] == ["theirs", "ssh"]
    assert "r" in [role["name"] for role in result["roles"]]


def test_a_user_role_that_the_administrator_spelled_out_is_extended_not_replaced(configured: Any) -> None:
    theirs = {"name": "user", "scopes": ["self", "list:groups"], "description": "theirs"}
    result = configured(config={"load_roles": [theirs]})
    (role,) = [role for role in result["roles"] if role["name"] == "user"]
    assert set(role["scopes"]) == {"self", "list:groups"} | USER_SCOPES
    assert role["description"] == "theirs"
    assert result["scopes"] == []


def test_a_user_role_without_scopes_keeps_its_defaults(configured: Any) -> None:
    result = configured(config={"load_roles": [{"name": "user", "description": "theirs"}]})
    assert granted(result) >= USER_SCOPES
    assert len([role for role in result["roles"] if role["name"] == "user"]) == 1


def test_sharing_is_granted_only_when_asked_for(configured: Any) -> None:
    assert granted(configured(sharing=True)) - granted(configured()) == {"shares!user"}


def test_starting_servers_is_granted_only_when_asked_for_and_as_narrowly_as_the_release_can(
    configured: Any, hub_release: Release
) -> None:
    def held(result: dict[str, Any]) -> set[str]:
        (role,) = [role for role in result["roles"] if role.get("services") == ["ssh"]]
        return set(role["scopes"])

    added = held(configured(start_servers=True)) - held(configured())
    assert added == ({"servers"} if hub_release == "5.5" else {"start:servers", "delete:servers"})


def test_activity_is_a_scope_that_can_be_left_out(configured: Any) -> None:
    (role,) = [role for role in configured(activity=False)["roles"] if role.get("services") == ["ssh"]]
    assert role["scopes"] == ["list:users", "read:servers", "read:users", "read:users:shares"]


def test_another_service_name_reaches_every_scope(configured: Any) -> None:
    result = configured(service="shell")
    assert granted(result) - {"self"} == {"access:services!service=shell", "custom:shell:connect!user"}
    assert result["services"][0]["oauth_client_id"] == "service-shell"


@pytest.mark.parametrize("environment", [{}, {"SSH_BASTION_HUB_TOKEN": "short"}])
def test_without_a_proper_token_nothing_is_configured(configured: Any, environment: dict[str, str]) -> None:
    assert "fewer than 32 characters" in configured(environment=environment)["error"]


def test_the_token_may_be_in_a_file(configured: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("f" * 40 + "\n")
    assert configured(environment={}, api_token_file=str(file))["services"][0]["api_token"] == "f" * 40


@pytest.mark.parametrize("text", ["2026-11-21T23:12:26.279903", "2026-11-21T23:12:26.279903+00:00"])
def test_the_instance_is_the_exact_microsecond(ask: Ask, text: str) -> None:
    assert ask("instance_id", text) == 1795302746279903


@pytest.mark.parametrize("name", ["profile_list, callable", "profile_list, async"])
def test_profiles_that_are_made_for_each_user_stay_with_the_box_below_them(ask: Ask, name: str) -> None:
    made = ask("hook", name)
    assert 0 <= made["page"].find("Large") < made["page"].find('name="enable_ssh"')
    assert made["options"] == {"profile": "large", "enable_ssh": True}


def test_an_async_form_stays_with_the_box_below_it(ask: Ask) -> None:
    made = ask("hook", "options_form, async")
    assert made["page"].startswith("<input name=size>")
    assert 'name="enable_ssh"' in made["page"]
    assert made["options"]["enable_ssh"] is True


def test_where_there_is_no_form_the_box_is_one(ask: Ask) -> None:
    assert 'name="enable_ssh"' in ask("hook", "options_form, none")["page"]


def test_the_simple_reading_of_a_form_goes_on_and_a_link_ticks_no_box(ask: Ask) -> None:
    made = ask("hook", "options_from_form, simple")
    assert made["options"] == {"size": "1", "enable_ssh": True}
    assert made["query"] == {"size": "1"}


def test_an_own_reading_of_a_form_goes_on_and_does_not_see_the_box(ask: Ask) -> None:
    assert ask("hook", "options_from_form, own")["options"] == {"read": ["size"], "enable_ssh": True}


def test_options_that_a_dictionary_applies_go_on(ask: Ask) -> None:
    """JupyterHub logs a warning for each option that is in no such dictionary; the box is not shown to it."""
    assert ask("hook", "apply_user_options, dict")["image"] == "theirs"


ECHO = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:]]))"
SERVER = [sys.executable, "-c", ECHO, "two words", "$HOME `id` $(id)", "'\"", "a\nline", "", "--", "*"]


def ran(ask: Ask, python: str, side: Path) -> tuple[list[str], str]:
    """What a container with these two ran in the end, as the process that it began with, and what its log says."""
    words = ask("pod_command", {"python": python, "pod_side": str(side), "server": SERVER})
    assert not [word for word in words[: -len(SERVER)] if "$(" in word or "$$" in word]  # Kubernetes would read them
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as container:
        said, log = container.communicate(timeout=60)
        assert container.returncode == 0, log
    process, arguments = json.loads(said)
    assert process == container.pid
    return arguments, log


@pytest.mark.parametrize("where", ["side.py", "side/__main__.py"])
def test_a_pod_whose_image_has_the_pod_side_becomes_it(ask: Ask, tmp_path: Path, where: str) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text(ECHO)
    assert ran(ask, sys.executable, tmp_path / Path(where).parts[0]) == (["--", *SERVER], "")


@pytest.mark.parametrize("lacking", ["the pod side", "all but its folder", "Python", "a Python that is new enough"])
def test_a_pod_whose_image_lacks_something_becomes_the_server_and_its_log_says_what(
    ask: Ask, tmp_path: Path, lacking: str
) -> None:
    side, python = tmp_path / "side", tmp_path / "python"
    if lacking != "the pod side":
        side.mkdir()
    if "Python" in lacking:
        (side / "__main__.py").write_text("raise SystemExit(2)")
    if lacking == "a Python that is new enough":
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
    arguments, log = ran(ask, str(python) if "Python" in lacking else sys.executable, side)
    assert arguments == SERVER[3:]
    assert log.startswith("[notebook-ssh] SSH stays off: this image has no pod side in ")
    assert log.count("\n") == 1
