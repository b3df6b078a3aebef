"""The bastion's command line: serve, and speak to a running one.

Composition only: settings are read here and nowhere else, the rooms are made here and given to each other.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence

from bastion.admin import AdminError, ask
from bastion.service import serve
from bastion.settings import Settings, read_settings
from ca.environment import SettingsError, setting_names
from ca.errors import BastionError

_ABOUT = """\
The SSH bastion of jupyterhub-bastion: lets people into their running JupyterHub servers.

Settings are environment variables that begin with BASTION_; `python -m bastion settings` lists them.
"""

_EXAMPLES = """\
examples:
  python -m bastion serve                    accept connections until SIGTERM
  python -m bastion sessions                 who is where, now
  python -m bastion cut alice/gpu            end every session of alice's server gpu
  python -m bastion refresh-keys             ask every pod for its public keys now
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a refusal or an outage, 2 for wrong usage or settings."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "settings":
        print("\n".join(setting_names(Settings)))  # noqa: T201
        return 0
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    try:
        if parsed.command == "serve":
            _log(settings)
            return asyncio.run(serve(settings))
        return asyncio.run(_command(settings, parsed))
    except BastionError as error:
        print(f"bastion: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bastion",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="accept connections until SIGTERM or SIGINT")
    sessions = commands.add_parser("sessions", help="list the live sessions of the running bastion")
    sessions.add_argument("--json", action="store_true", help="print JSON instead of a table")
    commands.add_parser("refresh-keys", help="rebuild the cache of pods' public keys; prints how many pods and keys")
    cut = commands.add_parser("cut", help="end live sessions; whose certificate still counts can connect again")
    cut.add_argument(
        "server",
        metavar="SERVER",
        help="a server as alice, alice/gpu or alice+gpu; or `session:NUMBER` as `sessions` shows it",
    )
    cut.add_argument("--why", default="An administrator ended your session.", help="the sentence that people read")
    commands.add_parser("settings", help="list the environment variables that are settings")
    return parser


async def _command(settings: Settings, parsed: argparse.Namespace) -> int:
    request: dict[str, object] = {"command": parsed.command}
    if parsed.command == "cut":
        request |= {"which": parsed.server, "why": parsed.why}
    answer = await ask(settings.admin_socket, request)
    if parsed.command == "sessions":
        print(json.dumps(answer, indent=2) if parsed.json else _table(answer))  # noqa: T201
    else:
        print(answer.get("said", ""))  # noqa: T201
    return 0


def _table(answer: Mapping[str, object]) -> str:
    rows = answer.get("sessions")
    if not isinstance(rows, list):
        raise AdminError("The bastion's answer cannot be read.")
    if not rows:
        return "No sessions."
    columns = ("id", "identity", "login", "server", "mode", "peer", "since", "received", "sent")
    lines = [columns] + [tuple(str(row.get(column, "")) for column in columns) for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _log(settings: Settings) -> None:
    """Everything that the rooms log, as lines of JSON on standard error."""
    import structlog  # noqa: PLC0415 - the other commands start faster without it

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler])
    # asyncio says "socket.send() raised exception" of every dead peer; asyncssh tells each connection and key.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
