"""Why: in a cluster the list of pods stands on one token that changes every hour and on one file of authorities."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bastion.directory.kube import TOKEN_SECONDS, Access, AccountToken, Cluster, configuration
from bastion.directory.podapi import KubeError
from tests.support.clock import Clock
from tests.support.tls import Authority

EMPTY = b'{"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []}'
REFUSED = b'{"kind": "Status", "code": 401}'


class Api:
    """An API over TLS that takes one token."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.token = "first"
        self.seen: list[str] = []
        (folder / "ca.crt").write_bytes(authority.pem)
        (folder / "token").write_text("first")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(authority.serve(folder / "server.pem"))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        given = head.partition("authorization: bearer ")[2].partition("\r\n")[0]
        self.seen.append(given)
        good = given == self.token
        status, body = (b"200 OK", EMPTY) if good else (b"401 Unauthorized", REFUSED)
        writer.write(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._tls)
        yield server.sockets[0].getsockname()[1]
        server.close()


@asynccontextmanager
async def cluster(folder: Path, port: int) -> AsyncIterator[Cluster]:
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
    made = Cluster(await configuration(Access(service_account=folder), environment))
    try:
        yield made
    finally:
        await made.aclose()


async def test_a_refused_token_is_read_again_before_the_next_request(tmp_path: Path) -> None:
    api = Api(tmp_path, Authority.make())
    async with api.running() as port, cluster(tmp_path, port) as made:
        assert (await made.page("hub", "a=b")).version == "1"
        api.token = "second"
        (tmp_path / "token").write_text("second\n")
        with pytest.raises(KubeError, match="does not take this service account's token"):
            await made.page("hub", "a=b")
        assert (await made.page("hub", "a=b")).version == "1"
        assert api.seen == ["first", "first", "second"]


def test_a_token_is_read_again_every_minute_and_kept_while_the_file_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock, made = tmp_path / "token", Clock(0.0), Made()
    file.write_text("first")
    token = AccountToken(file, clock)

    def shown() -> str:
        token(made)  # type: ignore[arg-type]
        return made.api_key["BearerToken"]

    file.write_text("second")
    clock.advance(TOKEN_SECONDS - 1)
    assert shown() == "Bearer first"
    clock.advance(1)
    assert shown() == "Bearer second"
    file.unlink()
    clock.advance(TOKEN_SECONDS)
    assert shown() == "Bearer second"
    assert "cannot be read again" in caplog.text
    for broken in ("", "a\nb", "ü"):
        file.write_text(broken)
        token.refused()
        assert shown() == "Bearer second"
    assert "second" not in caplog.text


class Made:
    """What of the client's configuration a token is written to."""

    def __init__(self) -> None:
        self.api_key: dict[str, str] = {}


@pytest.fixture
def as_python_313(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 3.13 on, contexts are strict by default."""
    plain = ssl.create_default_context

    def strict(*arguments: Any, **more: Any) -> ssl.SSLContext:
        made = plain(*arguments, **more)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", strict)


async def test_a_clusters_authority_without_extensions_is_taken(tmp_path: Path, as_python_313: None) -> None:
    api = Api(tmp_path, Authority.make())
    async with api.running() as port:
        async with cluster(tmp_path, port) as made:
            assert (await made.page("hub", "a=b")).pods == []
        (tmp_path / "ca.crt").write_bytes(Authority.make().pem)
        async with cluster(tmp_path, port) as made:
            with pytest.raises(KubeError, match="certificate does not count"):
                await made.page("hub", "a=b")


async def test_another_host_with_a_certificate_of_the_same_authority_is_not_spoken_to(tmp_path: Path) -> None:
    authority = Authority.make()
    api = Api(tmp_path, authority)
    api._tls.load_cert_chain(authority.serve(tmp_path / "other.pem", "127.0.0.2"))
    async with api.running() as port, cluster(tmp_path, port) as made:
        with pytest.raises(KubeError, match="certificate does not count"):
            await made.page("hub", "a=b")
        assert api.seen == []
