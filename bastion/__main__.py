"""The bastion's command line: serve, and speak to a running one.

Composition only: settings are read here and nowhere else, the rooms are made here and given to each other.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

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
  python -m bastion serve                     accept connections until SIGTERM
  python -m bastion serve --workers 2         the same with two processes; SIGHUP replaces them one for one
  python -m bastion sessions                  who is where, now
  python -m bastion cut alice/gpu             end every session of alice's server gpu
  python -m bastion cut user:alice            end every session of alice's certificates, wherever they lead
  python -m bastion refresh-keys              ask every pod for its public keys now
"""

_CUT = """\
End live sessions. Nothing is revoked: whose certificate or key still counts can connect again. To keep somebody
out, revoke the certificate or stop the server; running sessions then end by themselves.
"""

_WHICH = """\
which sessions:
  alice, alice/gpu, alice+gpu    every session and tunnel to that server
  session:3                      the one with this number in the first column of `sessions`
  serial:1763766746279903        those that came in with this certificate (`ssh-keygen -L` shows its serial)
  user:alice                     those that came in with a certificate of this JupyterHub user
"""

_SERVE = """\
Accept connections until SIGTERM or SIGINT, which give sessions BASTION_SHUTDOWN_GRACE seconds to end.

With several workers, SIGHUP starts new ones; the old ones accept nobody any more and end with their last session, after
BASTION_RESTART_GRACE seconds at the latest. New workers run the code that is installed by then, with the settings
that the first process was started with.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a refusal or an outage, 2 for wrong usage or settings."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "settings":
        print("\n".join(setting_names(Settings)))  # noqa: T201
        return 0
    chosen = getattr(parsed, "workers", None)
    try:
        settings = read_settings({**os.environ, **({"BASTION_WORKERS": chosen} if chosen is not None else {})})
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    try:
        return asyncio.run(_run(settings, parsed))
    except BastionError as error:
        print(f"bastion: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


async def _run(settings: Settings, parsed: argparse.Namespace) -> int:
    match parsed.command:
        case "serve":
            _log(settings)
            if settings.workers == 1:
                return await serve(settings)
            from bastion.workers import supervise  # noqa: PLC0415 - one process needs nothing of it

            return await supervise(settings)
        case "worker":
            from bastion.worker import work  # noqa: PLC0415 - as above

            _log(settings, parsed.number)
            return await work(settings, parsed.number, parsed.link, parsed.doors, insist=parsed.insist)
        case _:
            return await _command(settings, parsed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bastion",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve_ = commands.add_parser(
        "serve",
        help="accept connections until SIGTERM or SIGINT",
        description=_SERVE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve_.add_argument(
        "--workers", metavar="N", help="processes that share the port, one for each core (default: BASTION_WORKERS, 1)"
    )
    sessions = commands.add_parser("sessions", help="list the live sessions of the running bastion")
    sessions.add_argument("--json", action="store_true", help="print JSON instead of a table, with every field")
    workers = commands.add_parser("workers", help="list the processes of a bastion that has several")
    workers.add_argument("--json", action="store_true", help="print JSON instead of a table")
    commands.add_parser("refresh-keys", help="rebuild the cache of pods' public keys; prints how many pods and keys")
    cut = commands.add_parser(
        "cut",
        help="end live sessions; whose certificate still counts can connect again",
        description=_CUT,
        epilog=_WHICH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cut.add_argument("which", metavar="WHICH", help="a server, or session:, serial: or user: and what they name")
    cut.add_argument("--why", default="An administrator ended your session.", help="the sentence that people read")
    commands.add_parser("settings", help="list the environment variables that are settings")
    worker = commands.add_parser("worker")  # what the supervisor starts: no command for people, so without help
    worker.add_argument("number", type=int)
    worker.add_argument("link", type=int)
    worker.add_argument("doors", type=int, nargs="+")
    worker.add_argument("--insist", action="store_true")
    return parser


async def _command(settings: Settings, parsed: argparse.Namespace) -> int:
    request: dict[str, object] = {"command": parsed.command}
    if parsed.command == "cut":
        request |= {"which": parsed.which, "why": parsed.why}
    answer = await ask(settings.admin_socket, request)
    if parsed.command in _TABLES:
        print(json.dumps(answer, indent=2) if parsed.json else table(answer, parsed.command))  # noqa: T201
    else:
        print(answer.get("said", ""))  # noqa: T201
    if silent := answer.get("silent"):
        print(f"bastion: no answer from worker {', '.join(map(str, silent))}.", file=sys.stderr)  # type: ignore[call-overload]  # noqa: T201
        return 1
    return 0


_TABLES = {
    "sessions": ("id", "identity", "login", "server", "mode", "peer", "since", "received", "sent"),
    "workers": ("id", "process", "state", "seconds"),
}
_NUMBERS = frozenset({"received", "sent", "process", "seconds"})


def table(answer: Mapping[str, object], of: str) -> str:
    """The rows of an answer as columns, numbers to the right. Raises `AdminError` for what is no such answer."""
    rows = answer.get(of)
    if not isinstance(rows, list):
        raise AdminError("The bastion's answer cannot be read.")
    if not rows:
        return f"No {of}."
    columns = _TABLES[of]
    lines = [columns] + [tuple(_shown(row.get(column, "")) for column in columns) for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _shown(value: object) -> str:
    """A cell as a terminal may have it: a user's name can hold escape sequences, and line ends that forge a row."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(value))


def _log(settings: Settings, worker: int | None = None) -> None:
    """Everything that the rooms log, as lines of JSON on standard error; a worker says which one it is."""
    import structlog  # noqa: PLC0415 - the other commands start faster without it

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(),
                *([] if worker is None else [_by_worker(worker)]),
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


def _by_worker(number: int) -> Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]:
    """Puts the worker's number into each line of the log."""

    def add(logger: object, name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        del logger, name
        line["worker"] = number
        return line

    return add


if __name__ == "__main__":
    sys.exit(main())
