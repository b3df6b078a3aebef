"""The command line: serve, rotate a CA, see and revoke certificates, look at the settings."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from api import listings, logs, renewals
from api.compose import internal_secret, open_audit, open_signer
from api.settings import Settings, describe, read_settings
from api.store import Store
from ca.audit import AuditLog, Revoked
from ca.errors import BastionError
from ca.keyfiles import rotate
from ca.names import Server, parse_login

BY = "command line"

Rows = TypeVar("Rows")

_DESCRIPTION = """\
The jupyterhub-bastion api: JupyterHub logins in, SSH certificates out.

Everything is set by environment variables; `check-settings --list` lists them with their meaning. On a
machine where JupyterHub runs with its defaults only the hub token is needed:

    export SSH_API_HUB_TOKEN_FILE=/path/to/token     # api_token of the service "ssh" in jupyterhub_config.py
    export SSH_API_STATE_DIRECTORY=/path/to/state    # CA keys, database, the secret shared with the bastion
    python -m api check-settings
    python -m api serve
"""


class UsageError(BastionError):
    """What was typed cannot be done."""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command; the exit status. What goes wrong is said in sentences on standard error."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "check-settings" and chosen.list:
            return _say(describe())
        settings = read_settings(environment)
        logs.configure(settings.log.level)
        command: Callable[[Settings, argparse.Namespace], int] = chosen.run
        return command(settings, chosen)
    except BastionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m api", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("serve", help="run the service until SIGTERM")
    one.set_defaults(run=_serve)

    one = commands.add_parser(
        "rotate",
        help="take the next CA key into use",
        description="The next key becomes the current one, the current one stays trusted as the previous one, and a "
        "new next key is made. Nobody who was trusted is refused. A running service notices within seconds; rotate "
        "again only when every certificate of the previous key has ended.",
    )
    one.add_argument("ca", choices=("user", "host", "hop"), help="which CA")
    one.set_defaults(run=_rotate)

    one = commands.add_parser(
        "revoke",
        help="end certificates before their time",
        description="Revoke one certificate, or everything that was issued until now to a user, for a server, or at "
        "all. Works without JupyterHub. Every bastion hears it from the running service within two seconds; sessions "
        "of a certificate, user or server named here are cut.",
    )
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--serial", help="serial number of one certificate")
    what.add_argument("--user", help="JupyterHub user name")
    what.add_argument("--server", help="login name of a server: alice, alice+gpu")
    what.add_argument("--everyone", action="store_true", help="every certificate; new ones can be had at once")
    one.add_argument("--why", default="by an administrator", help="the reason, for the audit line")
    one.set_defaults(run=_revoke)

    one = commands.add_parser(
        "certificates",
        help="list the certificates that have not ended",
        description="User certificates that have not ended, the newest first, with the serial that `revoke` takes.",
    )
    one.add_argument("--user", help="only those of this JupyterHub user")
    one.add_argument("--server", help="only those that name this server, by its login name: alice, alice+gpu")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table, with every field")
    one.set_defaults(run=_certificates)

    one = commands.add_parser(
        "revocations",
        help="list what was revoked, when, by whom and why",
        description="Revocations that can still refuse something, the newest first.",
    )
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")
    one.set_defaults(run=_revocations)

    one = commands.add_parser("check-settings", help="say whether the settings can be used, or list them")
    one.add_argument("--list", action="store_true", help="list every setting with its meaning and default instead")
    one.set_defaults(run=_check)
    return parser


def _serve(settings: Settings, _chosen: argparse.Namespace) -> int:
    from api.serve import serve  # noqa: PLC0415 - the other commands need no web server

    asyncio.run(serve(settings))
    return 0


def _rotate(settings: Settings, chosen: argparse.Namespace) -> int:
    open_signer(settings)
    keys = rotate(settings.state_directory / "keys", chosen.ca, settings.certificates.keys_group)
    return _say(f"The {chosen.ca} CA now signs with {keys.current.fingerprint}.")


def _revoke(settings: Settings, chosen: argparse.Namespace) -> int:
    if chosen.serial is not None and not (chosen.serial.isdecimal() and 0 < int(chosen.serial) < 1 << 63):
        raise UsageError("A serial is a number, as `ssh-keygen -L` shows it.")
    server = None if chosen.server is None else parse_login(chosen.server)
    asyncio.run(_revoke_in_store(settings, chosen, server))
    event = Revoked(by=BY, reason=chosen.why, serial=chosen.serial, user=chosen.user, server=chosen.server)
    AuditLog(open_audit(settings)).write(event, time.time())
    return 0


async def _revoke_in_store(settings: Settings, chosen: argparse.Namespace, server: Server | None) -> None:
    now_ms = int(time.time() * 1000)
    async with Store(settings.database, settings.state_directory) as store:
        await store.open(now_ms)
        if chosen.serial is not None:
            await store.revoke_serial(int(chosen.serial), BY, chosen.why, now_ms)
            for serial in await _renewed_from(store, int(chosen.serial), now_ms):
                await store.revoke_serial(serial, BY, chosen.why, now_ms)
        elif chosen.user is not None:
            await store.revoke_user(chosen.user, BY, chosen.why, now_ms)
        elif server is not None:
            await store.revoke_server(server, BY, chosen.why, now_ms)
        else:
            await store.revoke_everyone(now_ms)


async def _renewed_from(store: Store, serial: int, now_ms: int) -> tuple[int, ...]:
    """Those that go with a certificate, where it is known."""
    record = await store.certificate(serial)
    found = () if record is None else await renewals.renewed_from(store, record, now_ms)
    return tuple(one.serial for one in found)


def _certificates(settings: Settings, chosen: argparse.Namespace) -> int:
    server = None if chosen.server is None else parse_login(chosen.server)

    async def read(store: Store) -> Sequence[listings.CertificateRow]:
        return await listings.certificates(store, time.time(), chosen.user, server)

    rows = asyncio.run(_with_store(settings, read))
    return _say(listings.as_json(rows) if chosen.json else listings.certificate_table(rows))


def _revocations(settings: Settings, chosen: argparse.Namespace) -> int:
    async def read(store: Store) -> Sequence[listings.RevocationRow]:
        return await listings.revocations(store, int(time.time() * 1000))

    rows = asyncio.run(_with_store(settings, read))
    return _say(listings.as_json(rows) if chosen.json else listings.revocation_table(rows))


async def _with_store(settings: Settings, read: Callable[[Store], Awaitable[Rows]]) -> Rows:
    async with Store(settings.database, settings.state_directory) as store:
        await store.open(int(time.time() * 1000))
        return await read(store)


def _check(settings: Settings, _chosen: argparse.Namespace) -> int:
    signer = open_signer(settings)
    internal_secret(settings)
    return _say(
        f"These settings can be used. JupyterHub's API: {settings.hub.api_url}. Our address: {settings.public_url}. "
        f"{len(signer.public.user)} user CA keys in {settings.state_directory / 'keys'}."
    )


def _say(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
