"""Why: certificates come over the network of a café: TLS is verified, proxies are used, nothing else is followed."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.client.hubssh import Machine, Trouble, Unreachable, Web, ask_about


class _Handler(BaseHTTPRequestHandler):
    """Answers with what the server was given, and notes what was asked."""

    server: Answering

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_CONNECT = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Answering(HTTPServer):
    asked: list[str]
    answer: tuple[int, dict[str, str], bytes]


@contextmanager
def answering(
    status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"", tls: ssl.SSLContext | None = None
) -> Iterator[tuple[Answering, str]]:
    """Something that answers so, and its address."""
    server = Answering(("127.0.0.1", 0), _Handler)
    server.asked, server.answer = [], (status, headers or {}, body)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server, f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def own_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """TLS for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a site that signs its own")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = folder / "site.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, folder / "key.pem")
    return context, path


def test_a_web_certificate_that_nobody_vouches_for_is_refused_and_the_way_out_told(tmp_path: Path) -> None:
    context, path = own_certificate(tmp_path)
    with answering(body=b'{"public_url": 1}', tls=context) as (server, url):
        with pytest.raises(Unreachable, match="is not trusted here") as trouble:
            Web(Machine(), url).ask("GET", "/about")
        assert trouble.value.code == "tls"
        assert "--ca-file" in trouble.value.cure
        assert server.asked == []
        assert Web(Machine(), url, str(path)).ask("GET", "/about").fields == {"public_url": 1}
        with pytest.raises(Trouble, match="holds no certificates"):
            Web(Machine(), url, str(tmp_path / "key.pem")).ask("GET", "/about")


def test_redirects_are_not_followed() -> None:
    with answering() as (elsewhere, there), answering(302, {"Location": f"{there}/about"}) as (_, url):
        assert Web(Machine(), url).ask("GET", "/about").status == 302
        assert elsewhere.asked == []
        with pytest.raises(Trouble, match="is not the SSH service"):
            ask_about(Machine(), url, "")


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(407) as (proxy, address):
        monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(Unreachable, match=r"ssh\.example\.org cannot be reached"):
            Web(Machine(), "https://ssh.example.org").ask("GET", "/about")
        assert proxy.asked == ["CONNECT ssh.example.org:443"]


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe", b'"x"'])
def test_other_web_servers_are_told_apart(body: bytes) -> None:
    with answering(body=body) as (_, url), pytest.raises(Trouble, match="is not the SSH service of a JupyterHub"):
        ask_about(Machine(), url, "")


def test_a_service_in_trouble_is_asked_again_later() -> None:
    said = b'{"error": "store_unavailable", "error_description": "The database is away.\\u001b[2J"}'
    with answering(503, body=said) as (_, url), pytest.raises(Unreachable) as trouble:
        ask_about(Machine(), url, "")
    assert trouble.value.line == "The database is away. [2J: wait a minute and try again"


def test_a_service_that_calls_itself_something_else_has_to_say_the_same_there() -> None:
    with answering(body=b'{"public_url": "http://127.0.0.1:9"}') as (_, url), pytest.raises(Unreachable):
        ask_about(Machine(), url, "")
    with answering(body=b'{"public_url": "http://ssh.example.org"}') as (_, url), pytest.raises(Trouble, match="plain"):
        ask_about(Machine(), url, "")


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://127.0.0.1:9", "unreachable"), ("https://no-such-name.invalid", "dns")],
)
def test_what_cannot_be_reached_is_told_with_its_reason(url: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unreachable) as trouble:
        Web(Machine(), url).ask("GET", "/about")
    assert trouble.value.code == code


def test_what_answers_but_not_as_a_web_server_is_no_traceback() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(1000)
                client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match="does not answer as a web server"):
            Web(Machine(), f"http://127.0.0.1:{listening.getsockname()[1]}").ask("GET", "/about")
        thread.join()
