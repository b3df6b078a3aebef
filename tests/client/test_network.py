"""Why: certificates come over the network of a café: TLS is verified, proxies are used, nothing else is followed."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.client import hubssh
from deploy.client.hubssh import Machine, Trouble, Unreachable, Web, ask_about
from tests.client.makers import site, store


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


def own_certificate(folder: Path, begins: int = -1, ends: int = 1) -> tuple[ssl.SSLContext, Path]:
    """TLS for 127.0.0.1 by an authority that was made by hand, with no more said of it than has to be, and its file.
    Good from and until so many hours from now."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ours, name = _named("a site's own authority"), _named("a site")
    now = datetime.datetime.now(datetime.UTC)

    def signed(builder: x509.CertificateBuilder) -> bytes:
        whole = builder.issuer_name(ours).serial_number(x509.random_serial_number())
        dated = whole.not_valid_before(now + datetime.timedelta(hours=begins))
        made = dated.not_valid_after(now + datetime.timedelta(hours=ends)).sign(authority, SHA256())
        return made.public_bytes(Encoding.PEM)

    path, own = folder / "authority.pem", folder / "site.pem"
    plain = x509.CertificateBuilder()
    root = plain.subject_name(ours).public_key(authority.public_key())
    path.write_bytes(signed(root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = signed(plain.subject_name(name).public_key(key.public_key()).add_extension(here, critical=False))
    own.write_bytes(leaf + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    return context, path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def test_a_web_certificate_that_nobody_vouches_for_is_refused_and_the_way_out_told(tmp_path: Path) -> None:
    context, path = own_certificate(tmp_path)
    with answering(body=b'{"public_url": 1}', tls=context) as (server, url):
        with pytest.raises(Unreachable, match="is not trusted here") as trouble:
            Web(Machine(), url).ask("GET", "/about")
        assert trouble.value.code == "tls"
        assert "--ca-file" in trouble.value.cure
        assert server.asked == []
        assert Web(Machine(), url, str(path)).ask("GET", "/about").fields == {"public_url": 1}
        (tmp_path / "no.pem").write_text("no certificate\n")
        with pytest.raises(Trouble, match="holds no certificates"):
            Web(Machine(), url, str(tmp_path / "no.pem")).ask("GET", "/about")


PYTHONS = sorted({*map(str, Path.home().glob(".pyenv/versions/3.1[0-9]*/bin/python3")), sys.executable})
"""The newest of them want more of an authority than sites say that make their own."""


@pytest.mark.parametrize("python", PYTHONS)
def test_a_site_s_own_authority_does_for_every_python(tmp_path: Path, python: str) -> None:
    context, path = own_certificate(tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import hubssh\n"
        "print(hubssh.Web(hubssh.Machine(), sys.argv[2], sys.argv[3]).ask('GET', '/about').status)"
    )
    with answering(tls=context) as (_, url):
        command = [python, "-I", "-S", "-c", script, str(Path(hubssh.__file__).parent), url, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("200\n", "")


def test_a_python_without_authorities_takes_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, path = own_certificate(tmp_path)
    nowhere = ssl.get_default_verify_paths()._replace(capath="")

    def empty() -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", empty)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    with answering(tls=context) as (_, url):
        monkeypatch.setattr(hubssh, "BUNDLES", (str(tmp_path / "none"),))
        with pytest.raises(Unreachable, match="trusts no web authority at all") as trouble:
            Web(Machine(), url).ask("GET", "/about")
        assert "Install Certificates" in trouble.value.cure
        monkeypatch.setattr(hubssh, "BUNDLES", (str(tmp_path / "none"), str(path)))
        assert Web(Machine(), url).ask("GET", "/about").status == 200


def test_a_ca_file_that_does_not_vouch_for_the_site_is_not_asked_for_again(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    context, _ = own_certificate(tmp_path / "one")
    _, other = own_certificate(tmp_path / "other")
    with answering(tls=context) as (_, url), pytest.raises(Unreachable) as trouble:
        Web(Machine(), url, str(other)).ask("GET", "/about")
    assert f"{other} does not vouch for it" in trouble.value.cure


@pytest.mark.parametrize(("begins", "ends", "said"), [(-2, -1, "has ended"), (1, 2, "has not begun")])
def test_a_certificate_out_of_its_time_may_be_the_clock_s_fault(
    tmp_path: Path, begins: int, ends: int, said: str
) -> None:
    context, path = own_certificate(tmp_path, begins, ends)
    with answering(tls=context) as (_, url), pytest.raises(Unreachable, match=said) as trouble:
        Web(Machine(), url, str(path)).ask("GET", "/about")
    assert trouble.value.code == "clock_or_certificate"
    assert "this machine's clock has it, which says" in trouble.value.sentence
    assert trouble.value.cure.startswith("if the clock is wrong, set it")


def test_the_doctor_names_both_where_it_may_be_the_clock_or_the_certificate(tmp_path: Path) -> None:
    context, path = own_certificate(tmp_path, -2, -1)
    with answering(tls=context) as (_, url):
        made = store(tmp_path, site(public_url=url, ca_file=str(path)))
        found = list(hubssh._chain(made, Namespace(site="", server="")))
    assert (found[-1].what, found[-1].state) == ("clock or web certificate", "wrong")


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
