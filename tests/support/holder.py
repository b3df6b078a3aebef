"""Why: a client that holds a certificate proves it with the real ssh-keygen, so that tests ask as clients do."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.browser import Person
from tests.support.service import Service
from tests.support.sshsig import NAMESPACE, make_key, public_line, sign


@dataclass
class Holder:
    """A key file, and the answer with which its certificate came."""

    service: Service
    key: Path
    told: dict[str, Any]

    def proof(self, method: str, path: str, body: bytes = b"", **changes: Any) -> str:
        """The header for one request. `changes` replace what is sent and signed; `signed` only what is signed."""
        signed = {**changes.pop("signed", {})}
        namespace = changes.pop("namespace", NAMESPACE)
        key = changes.pop("key", self.key)
        shown = {
            "serial": self.told["serial"],
            "nonce": secrets.token_hex(16),
            "time": str(int(self.service.clock())),
            **changes,
        }
        said = {"method": method, "url": f"{self.service.url}{path}", "body": body, **shown, **signed}
        digest = hashlib.sha256(said["body"]).hexdigest()
        lines = ("jupyterhub-bastion", said["method"], said["url"], said["serial"], said["nonce"], said["time"], digest)
        made = sign(key, "".join(f"{line}\n" for line in lines).encode(), namespace)
        shown.setdefault("signature", base64.b64encode(made).decode())
        return "SSHSIG " + ", ".join(f'{name}="{value}"' for name, value in shown.items())

    async def ask(self, method: str, path: str, given: object = None, **changes: Any) -> httpx.Response:
        """One request with a fresh proof; `given` is sent as JSON."""
        body = b"" if given is None else json.dumps(given).encode()
        headers = {"Authorization": self.proof(method, path, body, **changes)}
        if given is not None:
            headers["Content-Type"] = "application/json"
        return await self.service.request(method, path, headers=headers, content=body)

    async def renew(self, **wishes: object) -> httpx.Response:
        return await self.ask("POST", "/certificates/renew", wishes)

    def renewed(self, answer: httpx.Response) -> Holder:
        """The same key, with the certificate of a renewal."""
        assert answer.status_code == 201, answer.text
        return Holder(self.service, self.key, answer.json())


async def logged_in(service: Service, user: str, folder: Path, key: Path | None = None, **wishes: Any) -> Holder:
    """A client whose login `user` approved in a browser."""
    key = key or make_key(folder, f"{user}-{secrets.token_hex(4)}")
    begun = (await service.request("POST", "/device", data={"public_key": public_line(key), **wishes})).json()
    async with Person(service) as person:
        page = await person.log_in(user, f"/activate?code={begun['user_code']}")
        done = await person.submit(page, "/activate", then="approve")
        assert "Approved" in done.text, done.text
    body = {"device_code": begun["device_code"]}
    answer = await service.request("POST", "/device/token", data=body)
    assert answer.status_code == 200, answer.text
    return Holder(service, key, answer.json())
