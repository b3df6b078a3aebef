"""Why: secrets are made inside the cluster, once, so that neither Helm nor Argo CD ever sees one.

    python cluster_secrets.py make --namespace hub --internal NAME --cookie NAME --host-key NAME [--ca NAME]
        Create each named Secret; one that is there is left as it is. Runs as a Job of the chart, with the permission
        to create Secrets and no other: it cannot read what is there, nor change it.

    kubectl get secret NAME -o json | python cluster_secrets.py rotate user | kubectl apply -f -
        Take the next key of a CA into use, in a Secret that holds the CA keys: next becomes current, current stays
        trusted as previous, a new next is made. Nobody who was trusted is refused. Each is read within a minute or two.

In the image it stands beside the packages `ca`, `api` and `bastion`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
import secrets
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import asyncssh

from ca.errors import BastionError, KeyFileError
from ca.keyfiles import NAMES, open_authority, rotate

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PARTS = ("current", "current.pub", "next", "next.pub", "previous.pub")
_SECONDS = 20.0


class ClusterError(BastionError):
    """The Kubernetes API did not do what was asked; the text is a sentence."""


def internal_data() -> dict[str, bytes]:
    """What the api and the bastion share."""
    return {"secret": secrets.token_urlsafe(48).encode()}


def cookie_data() -> dict[str, bytes]:
    """What signs the browsers' cookies, the same in every replica of the api."""
    return {"cookie-key": secrets.token_hex(32).encode()}


def host_key_data() -> dict[str, bytes]:
    """The bastion's host key, the same in every replica, for people who have not taken the one known_hosts line."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return {"ssh_host_ed25519_key": key.export_private_key("openssh")}


def ca_data() -> dict[str, bytes]:
    """New keys of all three CAs."""
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            open_authority(Path(folder), name, None)
        return _read_keys(Path(folder))


def rotated(data: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    """The data of a Secret with CA keys, one CA rotated. Raises `KeyFileError` for data that is none."""
    with tempfile.TemporaryDirectory() as folder:
        for ca in NAMES:
            keys = Path(folder) / f"{ca}.1"
            keys.mkdir(mode=0o700)
            for part in _PARTS:
                if f"{ca}.{part}" in data:
                    (keys / part).write_bytes(data[f"{ca}.{part}"])
                    (keys / part).chmod(0o600)
            (Path(folder) / ca).symlink_to(keys.name)
            open_authority(Path(folder), ca, None)
        rotate(Path(folder), name, None)
        return _read_keys(Path(folder))


def create(host: str, account: Path, namespace: str, name: str, data: Mapping[str, bytes]) -> bool:
    """Create a Secret; False when one of that name was there, which is left as it is. Raises `ClusterError`."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "jupyterhub-bastion"}},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
    try:
        request = urllib.request.Request(
            f"https://{host}/api/v1/namespaces/{namespace}/secrets",
            data=json.dumps(secret).encode(),
            headers={
                "Authorization": f"Bearer {(account / 'token').read_text('ascii').strip()}",
                "Content-Type": "application/json",
            },
        )
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        # Python 3.13 refuses CAs without extensions that those of EKS and MicroK8s do not have.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # No proxy of the environment: the token is for the API server alone.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 409:
            return False
        raise ClusterError(f"Kubernetes does not let the Secret {name} be created: it answers {error.code}.") from None
    except OSError as error:
        raise ClusterError(f"The Kubernetes API at {host} cannot be asked: {error}.") from None


def main(arguments: Sequence[str], environment: Mapping[str, str], given: TextIO, account: Path = ACCOUNT) -> int:
    """Run one command; what goes wrong is one sentence on standard error and status 1."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "rotate":
            sys.stdout.write(json.dumps(_rotate(given.read(), chosen.ca)) + "\n")
            return 0
        for name, make in (
            (chosen.internal, internal_data),
            (chosen.cookie, cookie_data),
            (chosen.host_key, host_key_data),
            (chosen.ca, ca_data),
        ):
            if name:
                made = create(_api_server(environment), account, chosen.namespace, name, make())
                sys.stdout.write(f"Secret {name}: {'made' if made else 'was there, and is kept'}.\n")
    except BastionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _rotate(text: str, name: str) -> dict[str, object]:
    """The Secret in `text` with one CA rotated, as kubectl applies it: without what the server wrote into it."""
    try:
        secret = json.loads(text)
        data = {key: base64.b64decode(value, validate=True) for key, value in secret["data"].items()}
        about = {key: secret["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise KeyFileError("This is no Secret: give what `kubectl get secret NAME -o json` prints.") from None
    about |= {"labels": secret["metadata"].get("labels", {})}
    encoded = {key: base64.b64encode(value).decode() for key, value in rotated(data, name).items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": about, "data": encoded}


def _read_keys(directory: Path) -> dict[str, bytes]:
    files = [(f"{ca}.{part}", directory / ca / part) for ca in NAMES for part in _PARTS]
    return {key: file.read_bytes() for key, file in files if file.exists()}


def _api_server(environment: Mapping[str, str]) -> str:
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ClusterError("This is no pod: KUBERNETES_SERVICE_HOST is not set.")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster_secrets.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="create the Secrets that are not there")
    make.add_argument("--namespace", required=True)
    for name in ("--internal", "--cookie", "--host-key", "--ca"):
        make.add_argument(name, metavar="NAME", default="")
    turn = commands.add_parser("rotate", help="a Secret with CA keys on standard input, rotated on standard output")
    turn.add_argument("ca", choices=NAMES)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, sys.stdin))
