"""Why: the bastion dials whichever address a pod has, and a pod may have IPv4 addresses, IPv6 addresses or both."""

from __future__ import annotations

import socket
import subprocess
import urllib.request

import pytest

from tests.support.notebook import FOLDER, PYTHON, Notebook

_NO_IPV6 = (
    "import runpy, socket, sys; socket.has_ipv6 = False; del sys.argv[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")


@pytest.fixture
def pod(notebook: Notebook) -> Notebook:
    """A notebook server in Kubernetes, not started yet, that nobody told where to listen."""
    notebook.environment["KUBERNETES_SERVICE_HOST"] = "127.0.0.9"
    del notebook.environment["SSH_BASTION_LISTEN"]
    return notebook


def _echo(notebook: Notebook, host: str) -> bytes:
    command = ["ssh", *notebook.options(notebook.folder / "user"), host, "echo in"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=150, check=False).stdout


def _keys(notebook: Notebook, host: str) -> bytes:
    with urllib.request.urlopen(f"http://{host}:{notebook.key_port}/publickey", timeout=30) as response:
        return bytes(response.read())


def _refuses(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


@needs_ipv6
@pytest.mark.parametrize("ports", ["picked", "given"])
def test_in_a_pod_sshd_and_the_keys_are_reached_over_both_families(pod: Notebook, ports: str) -> None:
    if ports == "given":
        for name in ("SSH_BASTION_SSH_PORT", "SSH_BASTION_KEY_PORT"):
            with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
                pod.environment[name] = str(probe.getsockname()[1])
    pod.start()
    pod.ready(2).certificate()
    pod.raw_key()
    assert [_echo(pod, host) for host in ("127.0.0.1", "::1")] == [b"in\n", b"in\n"]
    listed = pod.authorized_keys.read_bytes()
    assert [_keys(pod, host) for host in ("127.0.0.1", "[::1]")] == [listed, listed]


def test_in_a_pod_without_ipv6_ipv4_alone_will_do(pod: Notebook) -> None:
    pod.program = (PYTHON, "-c", _NO_IPV6, str(FOLDER))
    pod.start()
    pod.ready().certificate()
    assert _echo(pod, "127.0.0.1") == b"in\n"
    assert _keys(pod, "127.0.0.1") == b""
    assert "::" not in pod.log


@needs_ipv6
@pytest.mark.parametrize("where", ["in a pod that was told so", "elsewhere"])
def test_all_of_ipv4_is_nothing_of_ipv6(pod: Notebook, where: str) -> None:
    if where == "elsewhere":
        del pod.environment["KUBERNETES_SERVICE_HOST"]
    else:
        pod.environment["SSH_BASTION_LISTEN"] = "0.0.0.0"
    pod.start()
    pod.ready().certificate()
    assert _echo(pod, "127.0.0.1") == b"in\n"
    assert [_refuses("::1", port) for port in (pod.ssh_port, pod.key_port)] == [True, True]


@needs_ipv6
def test_one_address_of_ipv6_is_nothing_of_ipv4(notebook: Notebook) -> None:
    notebook.environment["SSH_BASTION_LISTEN"] = "::1"
    notebook.start()
    notebook.ready().certificate()
    assert _echo(notebook, "::1") == b"in\n"
    assert [_refuses("127.0.0.1", port) for port in (notebook.ssh_port, notebook.key_port)] == [True, True]
