"""Why: a limit that is misspelt and silently ignored is no limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.settings import describe, read_settings
from ca.environment import SettingsError
from ca.limits import Capability

TOKEN = {"SSH_API_HUB_TOKEN": "hub-token-0123456789"}


def wrong(**changes: str) -> str:
    with pytest.raises(SettingsError) as raised:
        read_settings({**TOKEN, **{f"SSH_API_{name}": value for name, value in changes.items()}})
    return str(raised.value)


def test_beside_a_hub_with_its_defaults_only_the_token_is_needed() -> None:
    settings = read_settings(TOKEN)
    assert settings.hub.api_url == "http://127.0.0.1:8000/hub/api"
    assert settings.oauth_client_id == "service-ssh"
    assert settings.database == "sqlite+aiosqlite:////var/lib/jupyterhub-bastion/api.sqlite"
    assert settings.certificates.rules.capabilities == frozenset(Capability)
    with pytest.raises(SettingsError, match="SSH_API_HUB_TOKEN_FILE"):
        read_settings({})


def test_secrets_do_not_show() -> None:
    settings = read_settings({**TOKEN, "SSH_API_DATABASE_URL": "postgresql+asyncpg://u:hidden-0123456789@db/x"})
    assert "0123456789" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.hub.secret == "hub-token-0123456789"
    assert "0123456789" not in wrong(HUB_TIMEOUT="x", DATABASE_URL="hidden-0123456789")


def test_the_token_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    assert read_settings({"SSH_API_HUB_TOKEN_FILE": str(tmp_path / "token")}).hub.secret == "from-a-file"
    assert "cannot be read" in wrong_file(tmp_path / "missing")
    assert "once" in wrong(HUB_TOKEN_FILE=str(tmp_path / "token"))


def wrong_file(path: Path) -> str:
    with pytest.raises(SettingsError) as raised:
        read_settings({"SSH_API_HUB_TOKEN_FILE": str(path)})
    return str(raised.value)


def test_a_misspelt_setting_is_an_error_that_names_the_right_one() -> None:
    assert "Did you mean SSH_API_CERTIFICATES_LIFETIME?" in wrong(CERTIFICATES_LIFTIME="60")
    assert wrong(**{30 * "X": "1"}).endswith(" is not a setting. See: python -m api check-settings --list")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_NAME", "SSH"),
        ("SERVICE_NAME", "ssh.hub"),
        ("ZONE", "Hub"),
        ("ZONE", "a,b"),
        ("PUBLIC_URL", "gopher://x"),
        ("PUBLIC_URL", "https://user:password@x"),
        ("HUB_URL", "not an address"),
        ("HUB_TOKEN", "two words"),
        ("LISTEN_PORT", "70000"),
        ("LISTEN_TRUSTED_PROXIES", "10.0.0.0/8,x"),
        ("PODS_NETWORKS", "10.0.0.1/8"),
        ("CERTIFICATES_LIFETIME", "0"),
        ("CERTIFICATES_LIFETIME", "700000"),
        ("CERTIFICATES_CAPABILITIES", "pty,everything"),
        ("CERTIFICATES_GROUPS", "{"),
        ("CERTIFICATES_GROUPS", '{"a": {"permit": ["pty"]}}'),
        ("BASTION_HOSTS", ""),
        ("BASTION_HOSTS", "ssh.example.org,*"),
        ("BASTION_JUMP_LOGIN", "Jump"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_value_that_cannot_be_meant_is_an_error_that_names_the_setting(name: str, value: str) -> None:
    said = wrong(**{name: value})
    assert f"SSH_API_{name.partition('_')[0]}" in said or "zone" in said or "_CERTIFICATES_GROUPS" in said


def test_a_zone_that_holds_our_own_name_is_refused() -> None:
    assert "choose another zone" in wrong(ZONE="example.org", BASTION_HOSTS="ssh.example.org")
    assert "choose another zone" in wrong(ZONE="example.org", PUBLIC_URL="https://api.example.org")


@pytest.mark.parametrize("public", ["https://Hub.example.org:9443", "http://hub.example.org/ssh"])
def test_a_host_that_notebook_servers_share_is_refused_since_they_would_get_its_cookies(public: str) -> None:
    assert "a host name of its own" in wrong(PUBLIC_URL=public, HUB_URL="https://hub.example.org")
    apart = {"SSH_API_PUBLIC_URL": "https://ssh.example.org", "SSH_API_HUB_URL": "https://hub.example.org"}
    read_settings({**TOKEN, **apart})


@pytest.mark.parametrize(
    ("proxies", "pods"),
    [
        ("127.0.0.1", "127.0.0.0/8,::1/128"),
        ("192.0.2.1,10.0.0.0/8", "10.244.0.0/16"),
        ("10.244.3.4", "10.244.0.0/16"),
        ("fd00::1", "fd00::/8"),
    ],
)
def test_a_proxy_that_a_notebook_server_could_be_is_not_believed(proxies: str, pods: str) -> None:
    said = wrong(LISTEN_TRUSTED_PROXIES=proxies, PODS_NETWORKS=pods)
    assert "SSH_API_LISTEN_PROXY_SOCKET" in said
    assert "SSH_API_PODS_NETWORKS" in said
    read_settings({**TOKEN, "SSH_API_LISTEN_TRUSTED_PROXIES": proxies, "SSH_API_PODS_NETWORKS": "172.16.0.0/12"})


def test_where_notebook_servers_have_a_port_of_their_own_proxies_may_be_of_their_network() -> None:
    networks = {"SSH_API_LISTEN_TRUSTED_PROXIES": "10.1.2.0/24", "SSH_API_PODS_NETWORKS": "10.0.0.0/8"}
    assert read_settings({**TOKEN, **networks, "SSH_API_LISTEN_POD_PORT": "9082"}).listen.pod_port == 9082


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_no_mistake() -> None:
    injected = {
        "SSH_API_SERVICE_HOST": "10.0.0.1",
        "SSH_API_SERVICE_PORT_HTTP": "80",
        "SSH_API_PORT": "tcp://10.0.0.1:80",
        "SSH_API_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    read_settings({**TOKEN, **injected})


def test_groups_add_and_take() -> None:
    groups = '{"students": {"deny": ["x11"]}, "staff": {"allow": ["agent"]}}'
    given = {"SSH_API_CERTIFICATES_GROUPS": groups, "SSH_API_CERTIFICATES_CAPABILITIES": "pty, x11"}
    rules = read_settings({**TOKEN, **given}).certificates.rules
    assert rules.capabilities_of(frozenset({"students", "staff"})) == {Capability.PTY, Capability.AGENT}


def test_every_setting_is_described() -> None:
    for paragraph in describe().split("\n\n"):
        name, _, meaning = paragraph.partition("\n")
        assert name.startswith("SSH_API_")
        assert len(meaning.strip()) > 15, name
