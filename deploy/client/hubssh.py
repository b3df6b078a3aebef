#!/usr/bin/env python3
"""Why: getting a certificate must be easier than keeping a key: one command and one click, and `ssh gpu.hub` works.

The client of jupyterhub-bastion, for laptops: Linux, macOS and Windows, Python 3.9 and newer, its standard library
and OpenSSH's own programs. It is one file, so that it can be fetched and run as it is.

    login     makes a key, has it approved in the browser (RFC 8628), and tells ssh about it
    check     is what ssh asks before each connection (`Match exec`): it renews the certificate when it is time
    doctor    walks from the clock to the notebook server and names the first thing that is wrong

Everything lies in ~/.ssh/hubssh: `config`, which ~/.ssh/config includes, and one folder for each site with the key,
the certificate, `known_hosts` and `site.json`. Only the certificate says who somebody is and what it opens; what a
service answers beside it is checked before it is written to a file or shown on a terminal.

The parts, from the bottom: words, files, certificates, OpenSSH's programs, HTTP, what is known of a site, ssh's
configuration, the login, the check, the commands, the doctor. Heavy modules are imported where they are needed, since
ssh waits for the check.
"""

from __future__ import annotations  # hubssh needs Python 3.9 or newer

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

OLDEST: tuple[int, int] = (3, 9)  # hubssh needs Python 3.9 or newer
# A Python that cannot even read this file shows where it stopped: 2 and 3.5 at the line above, 3.6 at the first import.
if sys.version_info < OLDEST:
    sys.exit(
        f"hubssh: this is Python {sys.version_info[0]}.{sys.version_info[1]}, and hubssh needs 3.9 or newer: "
        "run it with another, as in python3.12 hubssh.py login"
    )

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Sequence

VERSION = "0.1.0"
STOP = 3
"""The exit status of `check` when ssh had better not connect; any other lets it go on."""
CLOCK_TOLERANCE = 60
NAMESPACE = "jupyterhub-bastion"


class Trouble(Exception):
    """Something that the person at the keyboard has to know: what is wrong, and what to do about it."""

    def __init__(self, sentence: str, cure: str = "", code: str = "failed") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.cure = cure
        self.code = code

    @property
    def line(self) -> str:
        """Both in one line."""
        return f"{self.sentence.rstrip('.')}: {self.cure}" if self.cure else self.sentence


class Refused(Trouble):
    """The service understood what was asked, and said no."""


class Unreachable(Trouble):
    """The service could not be asked, or is not well: nothing is known, and trying again later may do."""


# -- words -----------------------------------------------------------------------------------------------------------

LOGIN = re.compile(r"[a-z0-9._=][a-z0-9._=-]{0,1000}(\+[a-z0-9._=][a-z0-9._=-]{0,1000})?")
HOST = re.compile(r"[a-z0-9:]([a-z0-9.:-]{0,251}[a-z0-9:])?")
ZONE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
ACCOUNT = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
PRINCIPAL = re.compile(r"([a-z0-9._=-]+)/([a-z0-9._=-]*):([1-9][0-9]{0,18})")


def clean(text: object, longest: int = 400) -> str:
    """A text from elsewhere as one line that can do nothing to a terminal."""
    if not isinstance(text, str):
        return ""
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * longest])
    return " ".join(shown.split())[:longest]


def quote(name: str) -> str:
    """A JupyterHub name as login and host names have it: `=` and two hex digits for what is not `a-z0-9._-`."""
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-")
    quoted = "".join(chr(byte) if byte in plain else f"={byte:02x}" for byte in name.encode("utf-8", "replace"))
    return f"=2d{quoted[1:]}" if quoted.startswith("-") else quoted


def unquote(quoted: str) -> str:
    """The name that `quote` was given; what is no such name stays as it is."""
    raw = re.sub(rb"=([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), quoted.encode())
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return quoted


def is_plain(name: str) -> bool:
    """Whether a name means nothing to any shell once it stands between double quotes."""
    return all(char.isalnum() or char in " ._-" for char in name) and not name.startswith("-") and name == name.strip()


def shell_word(text: str) -> str:
    """A word of a command line that people paste: as it is where it can be, quoted for every shell where it need be.

    Whatever has to be between double quotes only is the same in sh, zsh, fish, cmd.exe and PowerShell.
    """
    backslash = "" if os.name == "nt" else "\\"
    if re.fullmatch(r"[A-Za-z0-9_./:@+-]+" if backslash else r"[A-Za-z0-9_./:@+\\-]+", text):
        return text
    if not set(text) & set(f'"$`!%{backslash}'):
        return f'"{text}"'
    return _for_shell(text)


def when(moment: float, now: float) -> str:
    """A moment as the clock on the wall shows it, with the day if that is not today."""
    there, here = time.localtime(moment), time.localtime(now)
    return time.strftime("%H:%M" if there[:3] == here[:3] else "%a %d %b %H:%M", there)


def span(seconds: float) -> str:
    """A length of time in words."""
    minutes = round(abs(seconds) / 60)
    if minutes < 1:
        return "less than a minute"
    hours, rest = divmod(minutes, 60)
    said = [
        f"{count} {word}{'' if count == 1 else 's'}" for count, word in ((hours, "hour"), (rest, "minute")) if count
    ]
    return " ".join(said)


# -- what hubssh stands on -------------------------------------------------------------------------------------------


class Done(NamedTuple):
    """A program that ended."""

    status: int
    out: bytes
    err: str


class Machine:
    """The clock, the programs and the terminal. Tests give one with another clock or other programs."""

    def __init__(self, clock: Callable[[], float] = time.time, windows: bool = os.name == "nt") -> None:
        self.clock = clock
        self.windows = windows
        self.json = False
        self.left: dict[str, None] = {}
        """What is left to do for the person, each once: it is told last, below what was asked for."""

    def say(self, text: str = "") -> None:
        """What was asked for. Left out where the answer is JSON."""
        if not self.json:
            print(text, flush=True)

    def tell(self, text: str) -> None:
        """What goes on meanwhile."""
        print(text, file=sys.stderr, flush=True)

    def answer(self, value: object) -> None:
        """The one JSON answer, where JSON was asked for."""
        if self.json:
            print(json.dumps(value, indent=1), flush=True)

    def run(self, *command: str, data: bytes = b"", alone: bool = False, limit: float = 120) -> Done:
        """A program to its end. `alone`: it cannot ask anything at the terminal. Raises `Trouble`."""
        import subprocess

        try:
            ended = subprocess.run(
                command,
                input=data,
                capture_output=True,
                timeout=limit,
                check=False,
                start_new_session=alone and not self.windows,
            )
        except FileNotFoundError:
            raise Trouble(f"The program {command[0]} is not here", "install OpenSSH's client", "no_program") from None
        except subprocess.TimeoutExpired:
            raise Trouble(f"{command[0]} did not end within {limit:.0f} seconds", code="too_slow") from None
        except OSError as error:
            raise Trouble(f"{command[0]} cannot be run ({error.strerror})", code="no_program") from None
        return Done(ended.returncode, ended.stdout, ended.stderr.decode("utf-8", "replace"))


# -- files -----------------------------------------------------------------------------------------------------------


def ssh_folder() -> str:
    """Where ssh looks for a person's files: not HOME, but the home of the account, as ssh has it."""
    if sys.platform == "win32":
        return os.path.join(os.path.expanduser("~"), ".ssh")
    import pwd

    try:
        return os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".ssh")
    except KeyError:
        return os.path.join(os.path.expanduser("~"), ".ssh")


def make_folder(machine: Machine, path: str) -> None:
    """A folder that only its owner may enter, if it is not there yet."""
    if os.path.isdir(path):
        return
    make_folder(machine, os.path.dirname(path))
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return  # another hubssh was quicker
    except OSError as error:
        raise Trouble(f"The folder {path} cannot be made ({error.strerror})", code="no_folder") from None
    only_for_me(machine, path)


def only_for_me(machine: Machine, path: str) -> None:
    """Windows knows no mode 0600: there its list of who may do what is cut down to the owner."""
    if not machine.windows:
        return
    domain, name = os.environ.get("USERDOMAIN", ""), os.environ.get("USERNAME", "")
    account = f"{domain}\\{name}" if domain else name
    right = f"{account}:(OI)(CI)F" if os.path.isdir(path) else f"{account}:F"
    done = machine.run("icacls", path, "/inheritance:r", "/grant:r", right, "/q")
    if done.status:
        raise Trouble(
            f"{path} cannot be made yours alone: icacls says {clean(done.err or done.out.decode(errors='replace'))}"
        )


def write(machine: Machine, path: str, content: str | bytes, mode: int = 0o600) -> None:
    """A whole file at once: whoever reads it sees the old one or the new one. Raises `Trouble`."""
    raw = _bytes(content)
    target = os.path.realpath(path)  # a link, as people have who keep their dot files elsewhere, stays one
    fresh = f"{target}.{os.getpid()}-{os.urandom(4).hex()}"
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            only_for_me(machine, fresh)
            _replace(machine, fresh, target)
        except BaseException:
            remove(fresh)
            raise
    except OSError as error:
        raise Trouble(f"{path} cannot be written ({error.strerror})", code="cannot_write") from None


def _replace(machine: Machine, fresh: str, target: str) -> None:
    for left in range(20, -1, -1):
        try:
            os.replace(fresh, target)
            return
        except PermissionError:  # on Windows while another process reads it
            if not machine.windows or not left:
                raise
            time.sleep(0.05)


def write_if_other(machine: Machine, path: str, content: str | bytes, mode: int = 0o600) -> None:
    """Write, unless it holds exactly that."""
    raw = _bytes(content)
    if read(path) != raw:
        write(machine, path, raw, mode)


def _bytes(content: str | bytes) -> bytes:
    return content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content


def read(path: str) -> bytes | None:
    """A file, None where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Trouble(f"{path} cannot be read ({error.strerror})", code="cannot_read") from None


def read_text(path: str) -> str:
    """A file as text, "" where there is none. What is no UTF-8 is the same bytes again when it is written."""
    return (read(path) or b"").decode("utf-8", "surrogateescape")


def remove(path: str) -> None:
    """It is gone afterwards, also if it never was."""
    try:
        os.remove(path)
    except OSError:
        pass


class Lock:
    """One process at a time, by a lock on a file that ends with the process. Not got in time: `held` is False."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self.held = False
        self._handle = -1

    def __enter__(self) -> Lock:
        try:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return self
        end = time.monotonic() + self.seconds
        try:
            while not self._take():
                if time.monotonic() > end:
                    return self
                time.sleep(0.05)
        except OSError:  # a file system without locks, as Lustre may be: waiting would not help
            return self
        self.held = True
        return self

    def _take(self) -> bool:
        import errno

        busy = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
        try:
            if sys.platform == "win32":
                import msvcrt

                busy.add(errno.EDEADLK)
                msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in busy:
                raise
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            os.close(self._handle)


# -- certificates ----------------------------------------------------------------------------------------------------

_KEY_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
"""How many strings a public key of a type has behind its type (RFC 4253, RFC 5656, OpenSSH's PROTOCOL.u2f)."""
_USER = 1
FOR_EVER = 1 << 62

EXEC = "permit-exec@jupyterhub-bastion"
JUMP_NEEDS = frozenset(
    {
        EXEC,
        "permit-user-rc",
        "permit-subsystem@jupyterhub-bastion",
        "permit-port-forwarding",
        "permit-local-forward@jupyterhub-bastion",
        "permit-remote-forward@jupyterhub-bastion",
        "permit-streamlocal@jupyterhub-bastion",
    }
)
"""Whoever lacks one of these may not connect end to end: a certificate could not keep it from them there."""
MEANINGS = {
    "permit-pty": "terminals",
    EXEC: "commands",
    "permit-subsystem@jupyterhub-bastion": "sftp",
    "permit-local-forward@jupyterhub-bastion": "forwarding with -L and -D",
    "permit-remote-forward@jupyterhub-bastion": "forwarding with -R",
    "permit-streamlocal@jupyterhub-bastion": "forwarding of Unix sockets",
    "permit-agent-forwarding": "agent forwarding",
    "permit-X11-forwarding": "X11 forwarding",
}


class Certificate(NamedTuple):
    """What a certificate says of itself. `renew_until` is the service's word beside it; 0 where it cannot be renewed.

    Times are seconds since the epoch.
    """

    serial: str
    user: str
    principals: list[str]
    valid_after: int
    valid_before: int
    extensions: list[str]
    renew_until: int = 0

    @property
    def runs(self) -> dict[str, str]:
        """The run of each server that it opens: login name to the run's number."""
        found = {}
        for principal in self.principals:
            match = PRINCIPAL.fullmatch(principal)
            if match:
                found[f"{match[1]}+{match[2]}" if match[2] else match[1]] = match[3]
        return found

    def may_jump(self) -> bool:
        """Whether the bastion carries connections end to end for it."""
        return frozenset(self.extensions) >= JUMP_NEEDS


class _Reader:
    """The wire format of RFC 4251, section 5. Raises `ValueError`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError("too short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        return self.take(self.number(4))

    def text(self) -> str:
        return self.string().decode("utf-8")

    def texts(self) -> list[str]:
        inside = _Reader(self.string())
        found = []
        while inside.at < len(inside.data):
            found.append(inside.text())
        return found

    def names(self) -> list[str]:
        """The names of a list of options."""
        return self.texts()[::2]


def key_blob(line: str) -> tuple[str, bytes]:
    """The type and the bytes of a public key line. Raises `Trouble`."""
    import base64
    import binascii

    words = line.split(None, 2)
    try:
        if len(words) < 2 or not re.fullmatch(r"[a-z0-9@.-]{1,64}", words[0]):
            raise ValueError("not a key")
        blob = base64.b64decode(words[1], validate=True)
        if _Reader(blob).string() != words[0].encode():
            raise ValueError("not that type")
    except (ValueError, binascii.Error):
        raise Trouble("That is not an SSH public key.", code="bad_key") from None
    return words[0], blob


def read_certificate(line: str, key_line: str, renew_until: object = None) -> Certificate:
    """The certificate in `line`, if it is one for that key and a person. Raises `Trouble`."""
    algorithm, key = key_blob(key_line)
    wrong = Trouble("The service sent a certificate that is not for this key.", code="bad_certificate")
    try:
        named, blob = key_blob(line)
        reader = _Reader(blob)
        if named != _certified(algorithm) or reader.text() != named:
            raise wrong
        reader.string()  # a nonce
        begins = reader.at
        for _ in range(_KEY_FIELDS[algorithm]):
            reader.string()
        if blob[begins : reader.at] != key[4 + len(algorithm) :]:
            raise wrong
        serial, kind, user = reader.number(8), reader.number(4), reader.text()
        principals, after, before = reader.texts(), reader.number(8), reader.number(8)
        reader.string()  # critical options
        extensions = reader.names()
    except (ValueError, KeyError, UnicodeDecodeError):
        raise wrong from None
    if kind != _USER or not principals or not user.isprintable() or not after < before < FOR_EVER:
        raise wrong
    until = renew_until if isinstance(renew_until, int) else 0
    return Certificate(str(serial), user, principals, after, before, extensions, until)


def _certified(algorithm: str) -> str:
    """`ssh-ed25519-cert-v01@openssh.com` for `ssh-ed25519`, and so on."""
    return f"{algorithm.replace('@openssh.com', '')}-cert-v01@openssh.com"


def fingerprint(line: str) -> str:
    """SHA256:… of a public key line."""
    import base64
    import hashlib

    digest = hashlib.sha256(key_blob(line)[1]).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


# -- OpenSSH's programs ----------------------------------------------------------------------------------------------


def make_key(machine: Machine, path: str, kind: str) -> None:
    """A new key pair without a passphrase: it opens nothing by itself, and the certificate lives hours."""
    make_folder(machine, os.path.dirname(path))
    if "sk" in kind:
        machine.tell("Touch your security key when it blinks.")
    comment = f"hubssh@{clean(_host_name(), 64)}"
    done = machine.run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", path)
    if done.status or read(path) is None:
        raise Trouble(f"ssh-keygen made no key: {clean(done.err) or done.status}", code="no_key")
    only_for_me(machine, path)


def public_line(machine: Machine, path: str) -> str:
    """The public half of a key: `path` is a private key, or the `.pub` of one that an agent or a device holds."""
    text = read_text(path if path.endswith(".pub") else f"{path}.pub").strip()
    if text:
        key_blob(text)
        return text
    done = machine.run("ssh-keygen", "-y", "-f", path)
    if done.status:
        raise Trouble(f"The key {path} cannot be read: {clean(done.err)}", "name another with --key", "no_key")
    return done.out.decode("utf-8", "replace").strip()


def sign(machine: Machine, key: str, message: bytes, alone: bool) -> str:
    """The SSHSIG over `message` in base64, by `ssh-keygen`, which asks an agent that has the key. Raises `Trouble`.

    `alone`: nobody is there who could be asked for a passphrase or a touch, and ssh waits.
    """
    if public_line(machine, key).startswith("sk-"):
        if alone:
            raise Trouble("Your security key has to be touched for that", "hubssh renew", "cannot_sign")
        machine.tell("Touch your security key when it blinks.")
    done = machine.run("ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, data=message, alone=alone)
    lines = done.out.decode("ascii", "replace").split()
    if done.status or "SIGNATURE-----" not in lines:
        raise Trouble(
            f"Your key {key} does not sign ({clean(done.err) or 'no reason given'})",
            "if it has a passphrase, ssh-add it; if it is a security key, run hubssh renew and touch it",
            "cannot_sign",
        )
    return "".join(line for line in lines if "-----" not in line and line not in ("SSH", "SIGNATURE"))


AGENT_PATIENCE = 20
"""Seconds for an ssh-agent, which may ask somebody: gpg-agent wants a passphrase for each key that it takes."""

_NO_AGENT = "ssh uses the file; hubssh login --no-agent leaves the agent alone."


def agent_runs(machine: Machine) -> bool:
    """Whether there is an ssh-agent. Raises `Trouble` for one that does not answer."""
    if not machine.windows and not os.environ.get("SSH_AUTH_SOCK"):
        return False
    try:
        return machine.run("ssh-add", "-l", alone=True, limit=AGENT_PATIENCE).status in (0, 1)
    except Trouble as trouble:
        if trouble.code == "too_slow":
            raise
        return False


def add_to_agent(machine: Machine, key: str, seconds: float) -> str:
    """Give the agent the key with its certificate until that ends. What was not possible, in words; "" if it was."""
    try:
        if not agent_runs(machine):
            return ""
        limited = ("-t", str(max(1, int(seconds))))
        done = machine.run("ssh-add", "-q", *limited, key, alone=True, limit=AGENT_PATIENCE)
    except Trouble as trouble:
        return f"The ssh-agent did not take the key ({trouble.sentence}): perhaps it asks you something. {_NO_AGENT}"
    if not done.status:
        return ""
    if machine.windows:
        return (
            "Windows' ssh-agent keeps keys for ever, so yours was not given to it. ssh uses the file; only agent "
            f'forwarding (-A) needs it there: ssh-add "{key}"'
        )
    return f"The ssh-agent does not take the key for a limited time ({clean(done.err)}): ssh uses the file."


def remove_from_agent(machine: Machine, key: str) -> str:
    """The agent knows the key and its certificate no more. What is in the way of that, in words; "" for nothing."""
    try:
        if agent_runs(machine):
            machine.run("ssh-add", "-q", "-d", key, alone=True, limit=AGENT_PATIENCE)
    except Trouble as trouble:
        return f"The ssh-agent does not answer ({trouble.sentence}), so it may keep your key for its time. {_NO_AGENT}"
    return ""


def key_from_agent(machine: Machine, wanted: str, path: str) -> None:
    """Write down the `.pub` of the one key of the agent whose fingerprint or comment holds `wanted`."""
    lines = machine.run("ssh-add", "-L", alone=True, limit=20).out.decode("utf-8", "replace").splitlines()
    keys = [line for line in lines if line.split(None, 1)[0] in _KEY_FIELDS]
    found = [line for line in keys if wanted in line or wanted == fingerprint(line)]
    if len(found) != 1:
        shown = ", ".join(f"{fingerprint(line)} {clean(line.split(None, 2)[-1], 40)}" for line in keys) or "none"
        raise Trouble(
            f"The agent has {len(found)} keys like that. It holds: {shown}", "--key agent:FINGERPRINT", "no_key"
        )
    make_folder(machine, os.path.dirname(path))
    write(machine, path, found[0] + "\n")


def _host_name() -> str:
    import socket

    return socket.gethostname()


# -- HTTP ------------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What the service answered. `fields` is empty where it was no JSON object."""

    status: int
    fields: dict[str, Any]
    text: str
    is_hub: bool
    date: float | None

    def trouble(self) -> Trouble:
        """The refusal that this answer is, in the service's words."""
        code = clean(self.fields.get("error"), 40) or f"http_{self.status}"
        sentence = clean(self.fields.get("error_description"))
        if self.status >= 500:
            said = sentence or f"the service answers {self.status}"
            return Unreachable(said, "wait a minute and try again", code)
        return Refused(sentence or f"The service refused this ({self.status}).", code=code)


def web_address(typed: str) -> str:
    """The address that somebody typed, in full. Raises `Trouble`."""
    from urllib.parse import urlsplit

    text = typed.strip()
    text = (text if "://" in text else f"https://{text}").rstrip("/")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    plain = re.fullmatch(r"[\x21-\x7e]+", text) and not set(text) & set("\"'\\<>^`{|}")
    if (
        not host
        or not plain
        or parts.scheme not in ("http", "https")
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise Trouble(f"{clean(typed, 80)!r} is no web address", "write it like https://ssh.example.org", "bad_address")
    if parts.scheme == "http" and not is_loopback(host):
        raise Trouble("Certificates are not fetched over plain http", f"https://{text[7:]}", "bad_address")
    return text


def is_loopback(host: str) -> bool:
    """Whether this is this machine itself."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Web:
    """The service at one address: HTTPS that is verified, by the proxy of the environment, and no redirects."""

    def __init__(self, machine: Machine, base: str, ca_file: str = "", limit: float = 15) -> None:
        self.machine = machine
        self.base = web_address(base)
        self.ca_file = ca_file
        self.limit = limit

    def ask(
        self,
        method: str,
        path: str,
        *,
        form: dict[str, str] | None = None,
        fields: dict[str, Any] | None = None,
        proof: Callable[[str, str, bytes], str] | None = None,
    ) -> Answer:
        """One request. Raises `Unreachable`, and what `proof` raises."""
        import http.client
        import urllib.error
        import urllib.request
        from urllib.parse import urlencode

        headers = {"Accept": "application/json", "User-Agent": f"hubssh/{VERSION}", "Cache-Control": "no-cache"}
        body = b""
        if form is not None:
            body, headers["Content-Type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        elif fields is not None:
            body, headers["Content-Type"] = json.dumps(fields).encode(), "application/json"
        if proof is not None:
            headers["Authorization"] = proof(method, self.base + path, body)
        request = urllib.request.Request(self.base + path, data=body or None, headers=headers, method=method)
        try:
            with self._opener().open(request, timeout=self.limit) as answer:
                return _answer(answer.status, answer.headers, answer.read(1 << 20))
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read(1 << 20))
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from None
        except http.client.HTTPException:  # a tree of its own
            raise Unreachable(f"{self.base} does not answer as a web server", "check the address", "not_http") from None

    def _opener(self) -> Any:
        import urllib.request

        class NoRedirects(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                """A signature and a device code are meant for one address."""

        handlers: list[Any] = [NoRedirects()]
        if self.base.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=self._trust()))
        return urllib.request.build_opener(*handlers)

    def _trust(self) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context()
        if trusts_nobody(context):  # python.org's on macOS, until its "Install Certificates" was run
            for bundle in filter(os.path.exists, BUNDLES):
                context.load_verify_locations(bundle)
                break
        if self.ca_file:
            # Newer Pythons want of an authority what most that sites make by hand do not say, such as its key's usage.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            try:
                context.load_verify_locations(self.ca_file)
            except (OSError, ssl.SSLError):
                raise Trouble(f"{self.ca_file} holds no certificates that can be read", "--ca-file FILE.pem") from None
        return context

    def _unreachable(self, error: Exception) -> Unreachable:
        import socket
        import ssl

        reason = getattr(error, "reason", error)
        host = self.base.split("/")[2]
        if isinstance(reason, ssl.SSLCertVerificationError):
            return self._not_trusted(host, reason)
        if isinstance(reason, ssl.SSLError):
            return Unreachable(f"{host} does not speak TLS ({clean(reason.reason)})", "check the address", "tls")
        if isinstance(reason, socket.gaierror):
            return Unreachable(f"The name {host} cannot be found", "check the address, and that you are online", "dns")
        if isinstance(reason, (socket.timeout, TimeoutError)):
            return Unreachable(f"{host} does not answer in time", "check your network, VPN and proxy", "time_out")
        said = clean(getattr(reason, "strerror", None) or str(reason)) or "no reason given"
        return Unreachable(f"{host} cannot be reached ({said})", "check your network, VPN and proxy", "unreachable")

    def _not_trusted(self, host: str, error: ssl.SSLCertVerificationError) -> Unreachable:
        if error.verify_code in (_NOT_YET, _EXPIRED):
            here = time.strftime("%a %d %b %Y %H:%M", time.localtime())  # what TLS compared with
            which = "ended" if error.verify_code == _EXPIRED else "not begun"
            return Unreachable(
                f"The web certificate of {host} has {which}, as this machine's clock has it, which says {here}",
                "if the clock is wrong, set it (or switch on network time); if it is right, tell the administrator",
                "clock_or_certificate",
            )
        if trusts_nobody(self._trust()):
            return Unreachable(
                f"This Python trusts no web authority at all, so it cannot know {host}",
                "on macOS run Install Certificates.command in Python's folder; elsewhere install ca-certificates",
                "no_authorities",
            )
        cure = "if your site signs its own, get its CA file and log in with --ca-file FILE; else leave"
        if self.ca_file:
            cure = f"get the site's CA file anew and log in with --ca-file FILE: {self.ca_file} does not vouch for it"
        return Unreachable(
            f"The web certificate of {host} is not trusted here ({clean(error.verify_message)})", cure, "tls"
        )


_NOT_YET, _EXPIRED = 9, 10
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
BUNDLES = ("/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Where systems keep the authorities that they trust: macOS and the BSDs, Debian, Fedora."""


def trusts_nobody(context: ssl.SSLContext) -> bool:
    """Whether no authority is known: none was read, and there is no folder where one would be looked for."""
    import ssl

    if context.cert_store_stats()["x509_ca"]:
        return False
    folder = ssl.get_default_verify_paths().capath
    return not (folder and os.path.isdir(folder) and os.listdir(folder))


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    from email.utils import parsedate_to_datetime

    text = body.decode("utf-8", "replace")
    try:
        fields = json.loads(text) if text.lstrip().startswith("{") else {}
    except ValueError:
        fields = {}
    try:
        date: float | None = parsedate_to_datetime(headers.get("Date") or "").timestamp()
    except (ValueError, TypeError, IndexError):
        date = None
    return Answer(status, fields, text, "X-JupyterHub-Version" in headers, date)


# -- what is known of a site -----------------------------------------------------------------------------------------


class Server(NamedTuple):
    """A server as the service listed it. `ssh`: whether its pod takes connections; None where that is not known.
    `unix_user`: the account that its sshd lets in; "" where that is not known.
    """

    login: str
    label: str
    own: bool
    state: str
    ssh: bool | None = None
    run: str = ""
    unix_user: str = ""


class Site(NamedTuple):
    """One service and one person's login there, as `site.json` keeps it.

    `key` is a private key, or a `.pub` whose private half an agent holds; `own_key`: hubssh made it, and removes it.
    `mode` is what was asked for: auto, jump or direct. `tried_at`: when a renewal last failed. `agent_failed`:
    the agent did not take the key, and is not asked again while ssh waits.
    """

    public_url: str
    key: str
    own_key: bool
    zone: str
    hosts: list[str]
    port: int
    jump_login: str
    unix_user: str
    mode: str = "auto"
    ca_file: str = ""
    user: str = ""
    agent: bool = True
    agent_failed: bool = False
    certificate: Certificate | None = None
    servers: tuple[Server, ...] = ()
    logged_in_at: int = 0
    tried_at: int = 0

    @property
    def name(self) -> str:
        """How the site is called in folders and on the command line."""
        return site_name(self.public_url)

    @property
    def jumps(self) -> bool:
        """Whether connections go end to end, through the bastion as a jump host."""
        if self.mode != "auto":
            return self.mode == "jump"
        return bool(self.unix_user) and (self.certificate is None or self.certificate.may_jump())

    def host(self, login: str) -> str:
        """The full host name of a server."""
        return f"{login}.{self.zone}"

    def short(self, login: str) -> str:
        """How ssh calls a server: `gpu.hub` for one's own, the full name for the others and where it is taken."""
        owner, _, name = login.partition("+")
        taken = {one.login for one in self.servers} | {quote(self.user)}
        return self.host(name if name and owner == quote(self.user) and name not in taken else login)

    def typed(self, login: str) -> str:
        """What to type for a server behind `hubssh start`, without quotes; nothing for one's own default server.

        The name that JupyterHub shows, where shells leave it alone and it is understood; else as logins have it.
        """
        mine = quote(self.user)
        if login == mine:
            return ""
        owner, _, name = login.partition("+")
        shown = unquote(name)
        words = [*([shown] if is_plain(shown) else []), name] if owner == mine else []
        return next((one for one in [*words, login] if self.meant(one) == login), self.host(login))

    def command(self, verb: str, login: str) -> str:
        """A command for a server, to be pasted into a shell."""
        typed = self.typed(login)
        return f"hubssh {verb} {shell_word(typed)}" if typed else f"hubssh {verb}"

    def ssh(self, login: str) -> str:
        """How ssh calls a server, to be pasted into a shell."""
        return shell_word(self.short(login))

    def logins(self) -> list[str]:
        """Every server that is known: those listed, and those of the certificate."""
        return sorted({one.login for one in self.servers} | set(self.certificate.runs if self.certificate else {}))

    def known_login(self, host: str) -> str:
        """The server that is known here by this host name, "" for none."""
        host = host.lower()
        return next((login for login in self.logins() if host in (self.short(login), self.host(login))), "")

    def login_of(self, host: str) -> str:
        """The login name behind a host name as it was typed, "" for none of ours."""
        host = host.lower()
        known = self.known_login(host)
        if known:
            return known
        suffix = f".{self.zone}"
        login = host[: -len(suffix)] if host.endswith(suffix) else ""
        return login if LOGIN.fullmatch(login) else ""

    def meant(self, typed: str) -> str:
        """The login name of a server as people type it: gpu, alice+gpu, alice/gpu, gpu.hub; "" is the default one."""
        text = typed.strip()
        text = text[: -len(self.zone) - 1] if text.lower().endswith(f".{self.zone}") else text
        if "/" in text:
            owner, _, name = text.partition("/")
            return f"{quote(owner)}+{quote(name)}" if name else quote(owner)
        mine = quote(self.user)
        if not text:
            return mine
        if text in self.logins() or "+" in text or text in (self.user, mine):
            return text if LOGIN.fullmatch(text) else quote(text)
        if f"{mine}+{text}" in self.logins():  # as host names have it
            return f"{mine}+{text}"
        return f"{mine}+{quote(text)}" if mine else text

    def label(self, login: str) -> str:
        """A server as JupyterHub's pages call it."""
        listed = [one.label for one in self.servers if one.login == login]
        return listed[0] if listed else "/".join(clean(unquote(part), 255) for part in login.split("+"))


def led_to(sites: Iterable[Site], host: str) -> tuple[Site, str] | None:
    """The site, and the login name there, that ssh's configuration leads a host name to; None for none of ours.

    A name that some site knows is that site's. What nobody knows may be new, and is told apart by its end alone.
    """
    sites = list(sites)
    for site in sites:
        login = site.known_login(host)
        if login:
            return site, login
    for site in by_zone(sites):
        login = site.login_of(host)
        if login:
            return site, login
    return None


def led_astray(sites: Iterable[Site], site: Site, login: str) -> Trouble | None:
    """Where ssh's configuration leads the name of a server of `site`, if not there: another site has that name too."""
    sites, host = list(sites), site.short(login)
    found = led_to(sites, host) if len(sites) > 1 else None
    if found is None or found[0].name == site.name:
        return None
    return Trouble(f"{host} leads to {found[0].public_url} now", f"hubssh login {site.public_url}", "other_site")


def by_zone(sites: Iterable[Site]) -> list[Site]:
    """Who is asked first about a name that no site knows: the narrower zone, then whoever jumps, since only then ssh
    needs to know no more than the zone, then the later login."""
    return sorted(sites, key=lambda one: (-len(one.zone), not one.jumps))


def site_name(public_url: str) -> str:
    """A name for folders, from the address."""
    return re.sub(r"[^a-z0-9.-]+", "-", public_url.partition("://")[2].lower()).strip("-.")


class Store:
    """The folder `hubssh` in the ssh folder."""

    def __init__(self, machine: Machine, ssh: str = "") -> None:
        self.machine = machine
        self.is_default = not ssh
        self.ssh = os.path.abspath(ssh) if ssh else ssh_folder()
        self.path = os.path.join(self.ssh, "hubssh")
        self.config = os.path.join(self.path, "config")

    def folder(self, site: Site) -> str:
        """Where the files of a site lie."""
        return os.path.join(self.path, site.name)

    def file(self, site: Site, name: str) -> str:
        """One of them."""
        return os.path.join(self.folder(site), name)

    def certificate_file(self, site: Site) -> str:
        """Beside a key of ours, where `ssh-add` looks for it; else in the site's folder: a key may have several."""
        return f"{site.key}-cert.pub" if site.own_key else self.file(site, "id-cert.pub")

    def sites(self) -> list[Site]:
        """Every site that was logged in to, the latest first."""
        try:
            names = sorted(os.listdir(self.path))
        except OSError:
            return []
        found = [self.load(os.path.join(self.path, name)) for name in names]
        return sorted((one for one in found if one), key=lambda one: -one.logged_in_at)

    def load(self, folder: str) -> Site | None:
        """The site of a folder. Raises `Trouble` for a file that is not ours."""
        path = os.path.join(folder, "site.json")
        raw = read(path)
        if raw is None:
            return None
        try:
            kept = json.loads(raw)
            made = kept.pop("certificate")
            kept["servers"] = tuple(Server(**one) for one in kept["servers"])
            return Site(**kept, certificate=Certificate(**made) if made else None)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Trouble(f"{path} is damaged", f"remove {folder} and log in again", "damaged") from None

    def save(self, site: Site) -> None:
        """Remember what is known."""
        make_folder(self.machine, self.folder(site))
        kept = site._asdict()
        kept["servers"] = [one._asdict() for one in site.servers]
        kept["certificate"] = site.certificate._asdict() if site.certificate else None
        write(self.machine, self.file(site, "site.json"), json.dumps(kept, indent=1) + "\n")

    def update(self, site: Site, **changes: Any) -> Site:
        """Remember something more about a site, whatever else has been learnt of it meanwhile."""
        with self.lock(site):
            changed = (self.load(self.folder(site)) or site)._replace(**changes)
            self.save(changed)
        return changed

    def lock(self, site: Site, seconds: float = 15) -> Lock:
        """One at a time for everything that changes a site's files."""
        make_folder(self.machine, self.folder(site))
        return Lock(self.file(site, "lock"), seconds)

    def known(self, wanted: str = "") -> Site:
        """The site that is meant: the one named, else the latest. Raises `Trouble`."""
        sites = [one for one in self.sites() if not wanted or wanted in (one.name, one.public_url)]
        if not sites:
            sentence = f"You are not logged in to {clean(wanted, 80)}" if wanted else "You are not logged in anywhere"
            raise Trouble(sentence, "hubssh login https://…, with the address of your hub's SSH page", "not_logged_in")
        return sites[0]


class Holder:
    """Whoever holds a certificate and its key, speaking to the service: each request is signed with the key."""

    def __init__(self, store: Store, site: Site, *, alone: bool = False, limit: float = 15) -> None:
        self.machine = store.machine
        self.site = site
        self.alone = alone
        self.web = Web(store.machine, site.public_url, site.ca_file, limit)

    def ask(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Answer:
        """One request with proof of possession. Raises `Trouble`."""
        if self.site.certificate is None:
            raise Trouble("You have no certificate here", "hubssh login", "no_certificate")
        return self.web.ask(method, path, fields=fields, proof=self._proof)

    def get(self, path: str) -> dict[str, Any]:
        """The answer to a GET. Raises `Trouble` with the service's refusal."""
        answer = self.ask("GET", path)
        if answer.status != 200:
            raise advised(answer, self.machine.clock())
        return answer.fields

    def _proof(self, method: str, url: str, body: bytes) -> str:
        import hashlib

        serial = self.site.certificate.serial if self.site.certificate else ""
        nonce, moment = os.urandom(16).hex(), str(int(self.machine.clock()))
        digest = hashlib.sha256(body).hexdigest()
        message = "".join(f"{part}\n" for part in (NAMESPACE, method, url, serial, nonce, moment, digest))
        signature = sign(self.machine, self.site.key, message.encode(), self.alone)
        return f'SSHSIG serial="{serial}", nonce="{nonce}", time="{moment}", signature="{signature}"'


def advised(answer: Answer, now: float) -> Trouble:
    """A refusal with what to do about it, for the few that hubssh knows more about than the sentence says."""
    trouble = answer.trouble()
    if trouble.code == "clock_off" and answer.date is not None:
        return clock_trouble(now - answer.date)
    if answer.status == 401 and "hubssh" not in trouble.sentence:
        trouble.cure = "hubssh login"
    return trouble


def clock_trouble(ahead: float) -> Trouble:
    """This machine's clock is wrong by so many seconds."""
    side = "ahead" if ahead > 0 else "behind"
    return Trouble(
        f"The clock of this machine is {span(ahead)} {side}",
        "set it (or switch on network time), then try again",
        "clock_off",
    )


def ask_about(machine: Machine, address: str, ca_file: str) -> tuple[dict[str, Any], Web]:
    """What the service says of itself, from its own address. Raises `Trouble`."""
    web = Web(machine, address, ca_file)
    about = _about(web)
    own = web_address(clean(about.get("public_url"), 300))
    if own != web.base:
        web = Web(machine, own, ca_file)
        about = _about(web)
        if clean(about.get("public_url"), 300).rstrip("/") != own:
            raise Trouble(f"{own} does not say that this is its address", "ask the administrator", "bad_address")
    return about, web


def _about(web: Web) -> dict[str, Any]:
    answer = web.ask("GET", "/about")
    if answer.status == 200 and "public_url" in answer.fields:
        return answer.fields
    if answer.is_hub:
        raise Trouble(
            f"{web.base} is JupyterHub itself",
            "its SSH page has an address of its own: look under Services",
            "not_ours",
        )
    if answer.status >= 500:
        raise answer.trouble()
    raise Trouble(f"{web.base} is not the SSH service of a JupyterHub", "check the address", "not_ours")


def site_from(about: dict[str, Any], web: Web, accepted_zone: str) -> Site:
    """A site as its service describes it, everything checked. Raises `Trouble`."""
    bastion = about.get("bastion")
    bastion = bastion if isinstance(bastion, dict) else {}
    hosts, port = bastion.get("hosts"), bastion.get("port")
    zone, jump, account = about.get("zone"), bastion.get("jump_login"), about.get("unix_user")
    strange = Trouble(
        f"{web.base} describes itself in a way that this hubssh does not know", "get a newer hubssh", "strange"
    )
    if not isinstance(hosts, list) or not 0 < len(hosts) < 20 or not all(_matches(HOST, one) for one in hosts):
        raise strange
    if not isinstance(port, int) or not 0 < port < 65536 or not _matches(ZONE, zone) or not _matches(LOGIN, jump):
        raise strange
    if zone not in ("hub", accepted_zone):
        raise Trouble(
            f"With this login, all names that end in .{zone} would lead to {web.base}",
            f"if that is meant, add --zone {zone}",
            "zone",
        )
    account = account if _matches(ACCOUNT, account) else ""
    return Site(web.base, "", False, str(zone), hosts, port, str(jump), str(account))


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and len(value) < 2000 and pattern.fullmatch(value) is not None


def servers_from(fields: dict[str, Any], user: str) -> tuple[Server, ...]:
    """The servers of `GET /servers`, checked; what does not parse is left out."""
    found: list[Server] = []
    listed = fields.get("servers")
    for one in listed[:1000] if isinstance(listed, list) else ():
        if not isinstance(one, dict) or not _matches(LOGIN, one.get("login")):
            continue
        owner, name = clean(one.get("owner"), 255), clean(one.get("name"), 255)
        ssh = one.get("ssh")
        found.append(
            Server(
                login=one["login"],
                label=f"{owner}/{name}" if name else owner or one["login"],
                own=owner == user,
                state=clean(one.get("state"), 20),
                ssh=ssh if isinstance(ssh, bool) else None,
                run=clean(str(one.get("instance") or ""), 20),
                unix_user=one["unix_user"] if _matches(ACCOUNT, one.get("unix_user")) else "",
            )
        )
    return tuple(found)


# -- ssh's configuration ---------------------------------------------------------------------------------------------

_HEAD = "# hubssh: the names of your JupyterHub servers. It has to stand above every Host and Match."
_SAFE_PATH = re.compile(r"[^\"'%$\\\x00-\x1f\x7f]+")


def configure(store: Store) -> None:
    """Write ssh's configuration anew from what is known of every site. Raises `Trouble`, but not where only the
    person's own file is in other hands: then it is told at the end what to write there."""
    _demand_nameable(store)
    sites = [one for one in store.sites() if one.certificate]
    install(store)
    write_if_other(store.machine, store.config, config_text(store, sites))
    try:
        include(store)
    except Trouble as trouble:
        store.machine.left[trouble.line] = None


def _demand_nameable(store: Store) -> None:
    if store.is_default:
        return
    for_cmd = store.machine.windows and set(store.ssh) & set("&^")  # which `_check_command` could not say to cmd.exe
    if for_cmd or not _SAFE_PATH.fullmatch(_slashes(store, store.ssh)):
        raise Trouble(f"The folder {store.ssh} has a name that ssh's configuration cannot hold", "--ssh-dir OTHER")


def install(store: Store) -> None:
    """A copy of this program, and the script with which ssh calls it: what was downloaded may be moved or removed."""
    make_folder(store.machine, store.path)
    source = read(os.path.abspath(__file__))
    if source:
        write_if_other(store.machine, os.path.join(store.path, "hubssh.py"), source)
    name, script = check_script(store, _python())
    write_if_other(store.machine, os.path.join(store.path, name), _script_bytes(store.machine, script), 0o700)


def _python() -> str:
    """The Python that ssh will run: not one of a virtual environment, which may go, nor a link's target, which may be
    replaced by an update."""
    if sys.prefix != sys.base_prefix:
        return str(getattr(sys, "_base_executable", "")) or os.path.realpath(sys.executable)
    return sys.executable or "python3"


SCRIPT = "stops"
"""Not `check`: that one, as earlier versions wrote it, says 0 for "go on", to a configuration that takes it so."""


def check_script(store: Store, python: str) -> tuple[str, str]:
    """What `Match exec` runs: 0 where ssh should not go on, 1 otherwise, also where Python has gone. So whatever keeps
    the script itself from running lets ssh go on, too."""
    call = "import sys; sys.path.insert(0, sys.argv[1]); import hubssh; sys.exit(hubssh.check_from_ssh(*sys.argv[1:3]))"
    gone = "hubssh: the Python that it ran with has gone: run hubssh login again"
    if store.machine.windows:
        # All arguments as they were written, since cmd.exe takes a = for the end of one, and no other can be there.
        there = _for_cmd(python)
        text = (
            "@echo off\r\nrem Written by hubssh: ssh runs this before it connects to a server.\r\n"
            f'if not exist "{there}" echo {gone} 1>&2\r\nif not exist "{there}" exit /b 1\r\n'
            f'"{there}" -I -S -c "{call}" "%~dp0." %*\r\n'
            f"if %errorlevel%=={STOP} exit /b 0\r\nexit /b 1\r\n"
        )
        return f"{SCRIPT}.cmd", text
    text = (
        "#!/bin/sh\n# Written by hubssh: ssh runs this before it connects to a server.\n"
        f"if ! command -v {_for_shell(python)} >/dev/null; then\n"
        f"    echo '{gone}' >&2\n    exit 1\nfi\n"
        f'{_for_shell(python)} -I -S -c {_for_shell(call)} {_for_shell(store.path)} "$1"\n[ $? = {STOP} ]\n'
    )
    return SCRIPT, text


def _script_bytes(machine: Machine, script: str) -> bytes:
    """A script as its shell reads it: cmd.exe by the code page of the console, in which not every name can be said."""
    if not machine.windows or script.isascii():
        return _bytes(script)
    try:
        return script.encode("oem")
    except (LookupError, UnicodeEncodeError):
        raise Trouble(
            f"cmd.exe cannot be told where Python is ({_python()})",
            "install Python in a folder with plain letters, such as C:\\Python, and log in with that one",
            "bad_name",
        ) from None


def _for_cmd(path: str) -> str:
    """A path within double quotes of a .cmd file: by a variable where that leaves out the name of the person, whose
    letters may mean others to cmd.exe."""
    for name in ("LOCALAPPDATA", "APPDATA", "USERPROFILE", "ProgramFiles"):
        folder = os.environ.get(name, "").rstrip("\\")
        if folder and path.lower().startswith(f"{folder.lower()}\\"):
            return f"%{name}%" + path[len(folder) :].replace("%", "%%")
    return path.replace("%", "%%")


def _for_shell(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def config_text(store: Store, sites: Sequence[Site]) -> str:
    """The file that ~/.ssh/config includes."""
    parts = ["# Written by hubssh; what you change here is lost. `hubssh logout` removes it.\n"]
    for zone in dict.fromkeys(one.zone for one in sites):  # before what it guards
        hosts = f"*.{zone}{_not_for_shells(store.machine)}"
        # ssh may read it all a second time, as for a `Match final` of the system's: by then it has been asked.
        head = f'Match !canonical originalhost "{hosts}" exec "{_check_command(store)}"'
        parts.append(_block(head, _stop(store.machine)))
    taken: dict[str, Site] = {}
    for site in sites:
        parts += _site_config(store, site, taken)
    parts += _wildcards(store, sites, taken)
    return "\n".join(parts)


def _site_config(store: Store, site: Site, taken: dict[str, Site]) -> Iterator[str]:
    """One site, as far as its names are known. A name that an earlier (later logged in) site has stays that one's."""
    yield f"# {site.public_url}, as {clean(site.user, 60)}\n"
    common = _common(store, site)
    # Editors list every Host line that is no pattern: the door is none of people's hosts, so it is a Match.
    at_door = [f"HostName {site.hosts[0]}", f"Port {site.port}"]
    yield _block(f"Match originalhost {_door(site)}", [*at_door, f"User {site.jump_login}", *common])
    for login in site.logins():
        yield from _server_config(site, login, at_door, common, taken)


def _wildcards(store: Store, sites: Sequence[Site], taken: dict[str, Site]) -> Iterator[str]:
    """Where names lead that no site knows. They come last, and leave out what another site knows: ssh takes the first
    value that it finds, but of keys and certificates all."""
    patterns: list[str] = []
    for site in by_zone(sites):
        pattern = f"*.{site.zone}"
        if not site.jumps or pattern in patterns:
            continue
        others = [name for name, whose in taken.items() if whose is not site and name.endswith(pattern[1:])]
        narrower = [one for one in patterns if one.endswith(pattern[1:])]
        names = ",".join([pattern, *(f"!{one}" for one in [*narrower, *others])])
        patterns.append(pattern)
        to = [_SERVERS_PORT, f"User {site.unix_user}", f"ProxyJump {_door(site)}"]
        yield _block(f"Match originalhost {names}", [*to, *_common(store, site)])


_SERVERS_PORT = "Port 22"
"""Said, since somebody's own `Host *` may say another, which the bastion does not lead to."""


def _door(site: Site) -> str:
    return f"hubssh-{site.name}"


def _server_config(
    site: Site, login: str, at_door: list[str], common: list[str], taken: dict[str, Site]
) -> Iterator[str]:
    short, full = site.short(login), site.host(login)
    if site.jumps:
        accounts = [one.unix_user for one in site.servers if one.login == login and one.unix_user]
        account = (accounts or [site.unix_user])[0]
        lines = [f"HostName {full}", _SERVERS_PORT, f"User {account}", f"ProxyJump {_door(site)}", *common]
    else:
        lines = [*at_door, f"User {login}", *common]
    if short not in taken:
        taken[short] = site
        yield _block(f"Host {short}", lines)
    if full not in taken:
        taken[full] = site
        yield _block(f"Match originalhost {full}", lines)


def _common(store: Store, site: Site) -> list[str]:
    return [
        f"IdentityFile {_path(store, site.key)}",
        f"CertificateFile {_path(store, store.certificate_file(site))}",
        "IdentitiesOnly yes",
        f"UserKnownHostsFile {_path(store, store.file(site, 'known_hosts'))}",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "PreferredAuthentications publickey",  # the bastion would offer a login in the browser, and wait for it
    ]


def _block(head: str, lines: Iterable[str]) -> str:
    return head + "\n" + "".join(f"    {line}\n" for line in lines)


def _slashes(store: Store, path: str) -> str:
    """A path with the slashes that ssh takes on Windows as well: in its configuration a backslash is no such thing."""
    return path.replace("\\", "/") if store.machine.windows else path


def _path(store: Store, path: str) -> str:
    """A path as ssh's configuration has it: from the home where that is possible, so that nothing needs quoting."""
    text = _slashes(store, path)
    if store.is_default and path.startswith(store.ssh + os.sep):
        text = "~/.ssh" + text[len(store.ssh) :]
    if not _SAFE_PATH.fullmatch(text):
        raise Trouble(f"The file {path} has a name that ssh's configuration cannot hold", "--key OTHER", "bad_name")
    return f'"{text}"'


def _check_command(store: Store) -> str:
    """Run by the shell of the person; on Windows by cmd.exe, whose `cd` takes blanks without quotes."""
    if store.machine.windows:
        folder = "%%USERPROFILE%%/.ssh/hubssh" if store.is_default else _slashes(store, store.path)
        return f"cd /d {folder.replace('/', chr(92))}&& {SCRIPT}.cmd {_BEFORE_HOST}%n"
    return f"'%d/.ssh/hubssh/{SCRIPT}' '%n'" if store.is_default else f"'{store.path}/{SCRIPT}' '%n'"


_BEFORE_HOST = "host:"
"""Stands before the host name where cmd.exe passes it on: a = would be lost at the beginning."""


def _not_for_shells(machine: Machine) -> str:
    """Host names that could leave their place in that command, as in the address of a hostile git submodule: the check
    is not run for them. OpenSSH before 9.6 looks at no such thing itself (CVE-2023-51385). What is left does nothing
    in cmd.exe: a `"` only has it take the rest as it is, and a = ends an argument, but all are passed on."""
    return "".join(f",!*{char}*" for char in ("&|<>^%();@!` " if machine.windows else "'\\"))


def _stop(machine: Machine) -> list[str]:
    """What makes ssh end without a word more than `check` has said."""
    command = "C:/Windows/System32/cmd.exe /c exit 1" if machine.windows else "false"
    return [f"ProxyCommand {command}", "LogLevel QUIET"]


def _include_line(store: Store) -> str:
    return "Include ~/.ssh/hubssh/config" if store.is_default else f'Include "{_slashes(store, store.config)}"'


def is_included(store: Store) -> bool:
    """Whether ssh's own configuration includes ours, before anything else can take its place."""
    ours = {_slashes(store, store.config), *(["~/.ssh/hubssh/config"] if store.is_default else [])}
    for line in _marked(read_text(os.path.join(store.ssh, "config")))[1].splitlines():
        # Programs that write this file put several into one line.
        keyword, *others = re.findall(r'"[^"]*"|[^\s"]+', line) or [""]
        if keyword.lower() == "include" and ours & {one.strip('"') for one in others}:
            return True
        if re.match(r"\s*(host|match)\b", line, re.IGNORECASE):
            return False
    return False


def include(store: Store) -> None:
    """Put the one line into ssh's configuration, at the top. Raises `Trouble` where another program keeps that file."""
    if is_included(store):
        return
    path = os.path.join(store.ssh, "config")
    mark, before = _marked(_without_include(store, read_text(path)))
    try:
        write(store.machine, path, f"{mark}{_HEAD}\n{_include_line(store)}\n\n{before}", _mode(path))
    except Trouble as trouble:
        raise Trouble(trouble.sentence, _by_hand(store), trouble.code) from None


def _by_hand(store: Store) -> str:
    return f"put this line first in it: {_include_line(store)}"


def exclude(store: Store) -> None:
    """Take it out again; a file that holds nothing else is removed. What another program keeps is left to the person: a
    line that includes a file that is gone does nothing."""
    path = os.path.join(store.ssh, "config")
    before = read_text(path)
    after = _without_include(store, before)
    if after == before:
        return
    if not after.strip() and not os.path.islink(path):
        remove(path)
        return
    try:
        write(store.machine, path, after, _mode(path))
    except Trouble as trouble:
        store.machine.left[f"{trouble.sentence}: take this line out of it: {_include_line(store)}"] = None


def _marked(text: str) -> tuple[str, str]:
    """The mark that editors on Windows put first, and the rest: anywhere else ssh would not know it."""
    return (text[:1], text[1:]) if text.startswith("\ufeff") else ("", text)


def _without_include(store: Store, text: str) -> str:
    mark, own = _marked(text)
    lines = own.splitlines(keepends=True)
    kept = [line for line in lines if line.strip() not in (_HEAD, _include_line(store))]
    return mark + "".join(kept).removeprefix("\n") if len(kept) < len(lines) else text


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode & 0o755
    except OSError:
        return 0o600


def authority(site: Site, web: Web) -> str:
    """What known_hosts has to hold: the keys of the service's host authority, for its bastion and its zone and nothing
    else. Raises `Trouble`."""
    answer = web.ask("GET", "/known_hosts")
    if answer.status != 200:
        raise answer.trouble()
    door = [one if site.port == 22 else f"[{one}]:{site.port}" for one in site.hosts]
    names = ",".join([*door, f"*.{site.zone}", f"[*.{site.zone}]:*"])
    lines = []
    for line in answer.text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == "@cert-authority":
            algorithm, _ = key_blob(f"{words[2]} {words[3]}")
            lines.append(f"@cert-authority {names} {algorithm} {words[3]}\n")
    if not lines:
        raise Trouble("The service names no authority for host keys", "ask the administrator", "strange")
    return "".join(lines)


# -- the login -------------------------------------------------------------------------------------------------------


class Wish(NamedTuple):
    """What somebody wants of a login. `server` is a login name: the one to start, and with `only` the one that the
    certificate is for. Otherwise it is for every server that runs.
    """

    server: str = ""
    only: bool = False
    start: bool = False
    lifetime: int = 0
    browser: bool = True
    other_user: bool = False
    key_name: str = ""
    """What a key that was made for this login is going to be called; "" for one that was there before."""


class Progress:
    """One line that changes, on a terminal; elsewhere a line for each new thing."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._live = sys.stderr.isatty()
        self._shown = ""

    def show(self, text: str, moving: str = "") -> None:
        """Say what goes on; `moving` is for terminals only."""
        if self._live:
            line = f"  {text} {moving}"[:78]
            sys.stderr.write("\r" + line.ljust(len(self._shown)))
            sys.stderr.flush()
            self._shown = line
        elif text != self._shown:
            self._shown = text
            self._machine.tell(f"  {text}")

    def end(self) -> None:
        """Leave the line."""
        if self._live and self._shown:
            sys.stderr.write("\r" + " " * len(self._shown) + "\r")
            sys.stderr.flush()
        self._shown = ""


def log_in(store: Store, site: Site, web: Web, wish: Wish) -> Site:
    """Get a certificate approved in a browser, and tell ssh about it. Raises `Trouble`; then all is as it was."""
    try:
        return _log_in(store, site, web, wish)
    finally:
        if wish.key_name:  # in place under its own name by now, or not wanted
            _remove_key(site.key)


def _log_in(store: Store, site: Site, web: Web, wish: Wish) -> Site:
    machine = store.machine
    key_line = public_line(machine, site.key)
    known_hosts = _ready(store, site, web)
    fields = _approved(machine, web, key_line, wish)
    line = clean(fields.get("certificate"), 40000)
    certificate = read_certificate(line, key_line, fields.get("renew_until"))
    new = site._replace(certificate=certificate, user=certificate.user, logged_in_at=int(machine.clock()), tried_at=0)
    new = new._replace(agent_failed=False)
    if site.user and certificate.user != site.user:
        if not wish.other_user:
            give_back(store, new)
            raise Trouble(
                f"{clean(certificate.user, 60)} approved this, and so far you were {clean(site.user, 60)} here",
                "log in as yourself in the browser, or, if that is meant, add --other-user",
                "other_user",
            )
        new = new._replace(servers=())
    with store.lock(new):
        before = store.load(store.folder(new))
        if wish.key_name:
            new = new._replace(key=_in_place(store, new, wish.key_name, before))
        write_if_other(machine, store.file(new, "known_hosts"), known_hosts)
        note = keep(store, new, line)
    if note:
        machine.tell(note)
    new = learn(store, new)
    configure(store)
    if before is not None and before.key != new.key:
        _forget_key(store, before, new)
    return new


def _ready(store: Store, site: Site, web: Web) -> str:
    """Whatever can fail is tried before somebody is asked for a click. What known_hosts will hold. Raises `Trouble`."""
    _demand_nameable(store)
    known_hosts = authority(site, web)
    make_folder(store.machine, store.folder(site))
    with store.lock(site) as lock:
        if not lock.held and not os.access(store.folder(site), os.W_OK):
            raise Trouble(f"The folder {store.folder(site)} cannot be written to", code="cannot_write")
    config_text(store, [site])  # the names of files are ones that it can hold
    is_included(store)  # and the person's own can be read; if it cannot be written, what to write is told at the end
    return known_hosts


def _in_place(store: Store, site: Site, name: str, before: Site | None) -> str:
    """Give a new key its name: one that the key of the last login does not have, since until `site.json` names the new
    one, that is the one that counts. Holds the lock."""
    folder, taken = store.folder(site), before.key if before else ""
    stem, public = (name[: -len(".pub")], ".pub") if name.endswith(".pub") else (name, "")
    first, second = (os.path.join(folder, f"{one}{public}") for one in (stem, f"{stem}_2"))
    path = second if taken == first else first
    _remove_key(path)
    try:
        if not public:
            _replace(store.machine, f"{site.key}.pub", f"{path}.pub")
        _replace(store.machine, site.key, path)
    except OSError as error:
        raise Trouble(f"{path} cannot be written ({error.strerror})", code="cannot_write") from None
    return path


def _remove_key(path: str) -> None:
    for one in (path, f"{path}.pub", f"{path}-cert.pub"):
        remove(one)


def _forget_key(store: Store, before: Site, new: Site) -> None:
    """The key of an earlier login, which nothing names any more: if hubssh made it, or wrote it down, it goes."""
    if before.own_key and before.key:
        remove_from_agent(store.machine, before.key)
    if os.path.dirname(before.key) == store.folder(before):
        _remove_key(before.key)
    if store.certificate_file(before) != store.certificate_file(new):
        remove(store.certificate_file(before))


def keep(store: Store, site: Site, line: str) -> str:
    """Write down a new certificate and give it to the agent. What the agent did not do, in words: that is remembered,
    and ssh does not wait for it again. Holds the lock."""
    machine, certificate = store.machine, site.certificate
    for_agent = site.own_key and site.agent and not site.agent_failed and certificate is not None
    # The old certificate would stay beside the new one.
    note = remove_from_agent(machine, site.key) if for_agent else ""
    write(machine, store.certificate_file(site), line + "\n")
    store.save(site)  # before the agent is waited for: somebody may end that
    if not for_agent or certificate is None:
        return ""
    note = note or add_to_agent(machine, site.key, certificate.valid_before - machine.clock())
    if note:
        store.save(site._replace(agent_failed=True))
    return note


def learn(store: Store, site: Site) -> Site:
    """Ask which servers there are. Where that cannot be learnt, those of the certificate have to do."""
    try:
        servers = servers_from(Holder(store, site).get("/servers"), site.user)
    except Trouble:
        return site
    return store.update(site, servers=servers)


def renew(store: Store, site: Site, *, alone: bool, limit: float = 15) -> Site:
    """A new certificate for the same key, without a browser. Holds the lock. Raises `Trouble`."""
    machine = store.machine
    answer = Holder(store, site, alone=alone, limit=limit).ask("POST", "/certificates/renew", {})
    if answer.status not in (200, 201):
        raise advised(answer, machine.clock())
    line = clean(answer.fields.get("certificate"), 40000)
    certificate = read_certificate(line, public_line(machine, site.key), answer.fields.get("renew_until"))
    if certificate.user != site.user:
        raise Trouble("The service renewed the certificate for somebody else.", code="bad_certificate")
    new = site._replace(certificate=certificate, tried_at=0, agent_failed=site.agent_failed and alone)
    note = keep(store, new, line)
    if note and not alone:
        machine.tell(note)
    return new


def give_back(store: Store, site: Site) -> bool:
    """Revoke every certificate of this key. Whether that could be done."""
    if site.certificate is None:
        return True
    holder = Holder(store, site)
    mine = site.certificate.serial
    try:
        key = fingerprint(public_line(store.machine, site.key))
        listed = holder.get("/certificates").get("certificates")
        of_key = [one for one in listed if isinstance(one, dict) and one.get("fingerprint") == key] if listed else []
        serials = {str(one.get("serial")) for one in of_key} - {mine}
        # The oldest first: what was renewed from one that is revoked is revoked with it, ours among them at last.
        for serial in [*sorted((one for one in serials if one.isdecimal()), key=int), mine]:
            answer = holder.ask("DELETE", f"/certificates/{serial}")
            if answer.status not in (200, 204):
                return answer.fields.get("error") == "revoked"
    except Trouble:
        return False
    return True


def _approved(machine: Machine, web: Web, key_line: str, wish: Wish) -> dict[str, Any]:
    """The answer of a login that somebody approved (RFC 8628). Raises `Trouble`."""
    form = {"public_key": " ".join(key_line.split()[:2]), "host_name": clean(_host_name(), 64)}
    form.update({"server": wish.server} if wish.server else {})
    form.update({"only": "1"} if wish.only else {})
    form.update({"lifetime": str(wish.lifetime)} if wish.lifetime else {})
    form.update({"start": "1"} if wish.start else {})
    answer = web.ask("POST", "/device", form=form)
    if answer.status != 200:
        raise answer.trouble()
    code, device = clean(answer.fields.get("user_code"), 20), clean(answer.fields.get("device_code"), 300)
    page = clean(answer.fields.get("verification_uri_complete") or answer.fields.get("verification_uri"), 300)
    fit = page.startswith(f"{web.base}/") and re.fullmatch(r"[A-Za-z0-9:/?=&%._~\[\]-]+", page)
    if not fit or not code or not device:
        raise Trouble(f"{web.base} answers in a way that this hubssh does not know", "get a newer hubssh", "strange")
    _show(machine, page, code, key_line, wish)
    progress = Progress(machine)
    try:
        return _wait(web, device, answer.fields, progress)
    finally:
        progress.end()


def _show(machine: Machine, page: str, code: str, key_line: str, wish: Wish) -> None:
    opens = wish.browser and may_open_browser()
    machine.tell(f"{'Open in a browser, if yours does not show it' if opens else 'Open in a browser'}: {page}")
    machine.tell(f"Code: {code}      Key: {fingerprint(key_line)}")
    machine.tell("Log in there, compare these, and approve.")
    if opens:
        open_browser(page)


def may_open_browser() -> bool:
    """Whether opening a page leads to a window, and not to a browser inside this terminal or nowhere."""
    here = sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME")
    )
    return here and not os.environ.get("SSH_CONNECTION")


def open_browser(page: str) -> None:
    """Show a page, if that is possible. By a process of its own: some browsers are waited for until they end, and all
    would write between what hubssh says, or keep its output open for whoever reads that to the end."""
    import subprocess
    import threading

    nowhere = subprocess.DEVNULL
    command = (sys.executable, "-I", "-m", "webbrowser", page)  # -I: not a webbrowser.py of the folder one is in
    try:
        child = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
    except OSError:
        return
    threading.Thread(target=child.wait, daemon=True).start()


def _wait(web: Web, device: str, begun: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Ask until somebody has decided. The service's clock says when it is too late; ours only bounds it."""
    pause, patience = _within(begun.get("interval"), 1, 60, 5), _within(begun.get("expires_in"), 10, 3600, 600)
    end = time.monotonic() + 3 * patience  # an approved login that starts a server may take as long again
    began = time.monotonic()
    while time.monotonic() < end:
        time.sleep(pause)
        left = patience - (time.monotonic() - began)
        try:
            answer = web.ask("POST", "/device/token", form={"device_code": device, "grant_type": _GRANT})
        except Unreachable as trouble:
            progress.show(f"{trouble.sentence}; trying again")
            continue
        code = answer.fields.get("error")
        if answer.status == 200:
            return answer.fields
        if code == "authorization_pending":
            progress.show(*_meanwhile(answer.fields.get("progress"), left))
        elif code == "slow_down":
            pause = max(pause + 5, _within(answer.fields.get("interval"), 1, 60, 1))
        elif answer.status >= 500 or answer.status == 429:
            progress.show(f"{answer.trouble().sentence}; trying again")
        else:
            raise _not_approved(answer)
    raise Trouble("Nobody approved the login in time", "hubssh login", "expired_token")


_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def _within(value: object, least: int, most: int, otherwise: int) -> int:
    return min(max(value, least), most) if isinstance(value, int) else otherwise


def _meanwhile(started: object, left: float) -> tuple[str, str]:
    if not isinstance(started, dict):
        return "Waiting for you to approve …", f"{span(left)} left" if left > 0 else ""
    percent = started.get("percent")
    said = clean(started.get("message"), 60) or "The server is starting"
    return f"{percent:3} % {said}" if isinstance(percent, int) else said, ""


def _not_approved(answer: Answer) -> Trouble:
    code = answer.fields.get("error")
    if code == "access_denied":
        return Refused("You said no in the browser, so there is no certificate.", code="access_denied")
    if code == "expired_token":
        return Refused("Nobody approved the login in time", "hubssh login", "expired_token")
    return answer.trouble()


# -- the check, which ssh waits for ----------------------------------------------------------------------------------

RETRY = 60
"""Seconds after a renewal that failed until the next is tried, while the certificate is still good."""
PATIENCE = 10
"""Seconds that ssh waits for the service, at most for each of two questions."""
WORTH = 60
"""A renewal that would bring fewer seconds than this is not tried."""


def is_due(certificate: Certificate, now: float) -> bool:
    """Whether it is time for a new certificate: half of this one's life is over, and a new one would end later."""
    half = (certificate.valid_after + certificate.valid_before) / 2
    return now >= certificate.valid_before or (
        now > half and certificate.renew_until > certificate.valid_before + WORTH
    )


def is_fresh(site: Site, login: str, now: float) -> bool:
    """Whether there is nothing to do before a connection to this server."""
    certificate = site.certificate
    if certificate is None or login not in certificate.runs or now >= certificate.valid_before:
        return False
    return not is_due(certificate, now) or 0 <= now - site.tried_at < RETRY


class Stop(Trouble):
    """ssh had better not connect: it would only be refused, or asked to wait."""


def check_from_ssh(folder: str, host: str) -> int:
    """What ssh runs before each connection. `folder` is ~/.ssh/hubssh."""
    ssh = os.path.dirname(os.path.abspath(folder))
    own = os.path.normcase(ssh) == os.path.normcase(ssh_folder())
    machine = Machine()
    host = host[len(_BEFORE_HOST) :] if machine.windows and host.startswith(_BEFORE_HOST) else host
    return run_check(Store(machine, "" if own else ssh), host)


def run_check(store: Store, host: str) -> int:
    """0: go on. `STOP`: do not, and why was said in one line. Anything that is not known lets ssh go on."""
    try:
        check(store, host)
    except Stop as trouble:
        store.machine.tell(f"hubssh: {trouble.line}")
        return STOP
    except Trouble as trouble:
        store.machine.tell(f"hubssh: {trouble.line}")
    return 0


def check(store: Store, host: str) -> None:
    """Renew the certificate if it is time, and say what is known to keep ssh out. Raises `Stop` and `Trouble`."""
    sites = store.sites()
    found = led_to(sites, host)
    if found is None:
        return
    site, login = found
    try:
        _check(store, site, login, host)
    except Trouble as trouble:
        trouble.sentence, trouble.cure = (at_site(sites, site, text) for text in (trouble.sentence, trouble.cure))
        raise


_COMMAND = re.compile(r"\bhubssh (login|start|renew)\b(?! https?:)")


def at_site(sites: Sequence[Site], site: Site, text: str) -> str:
    """A text whose commands are for this site, also where it is not the one that they are for by themselves."""
    return text if site.name == sites[0].name else _COMMAND.sub(rf"\g<0> --site {site.name}", text)


def _check(store: Store, site: Site, login: str, host: str) -> None:
    now = store.machine.clock()
    if is_fresh(site, login, now):
        return
    if site.certificate is None or is_due(site.certificate, now):
        try:
            with store.lock(site):  # many may start together: one renews, the others find it done
                site = store.load(store.folder(site)) or site
                if is_fresh(site, login, now):
                    return
                site = _renewed(store, site, now)
        except Stop as trouble:
            if trouble.code in _OF_ONE_SERVER:
                _stop_for(store, site, host)
            raise
    if site.certificate is not None and login not in site.certificate.runs:
        _stop_for(store, site, host)


_OF_ONE_SERVER = ("server_stopped", "server_restarted")
"""Refusals to renew that name the first server of the certificate, while ssh may be about another."""


def _renewed(store: Store, site: Site, now: float) -> Site:
    """The site with a new certificate, or with the old one while that is good. Raises `Stop` and `Trouble`."""
    certificate = site.certificate
    if certificate is None:
        raise Stop("You have no certificate", "hubssh login")
    good = now < certificate.valid_before
    if good and 0 <= now - site.tried_at < RETRY:
        return site
    try:
        return renew(store, site, alone=True, limit=PATIENCE)
    except Trouble as trouble:
        # What is on disk, since a certificate that came and was kept is not to be forgotten again.
        store.save((store.load(store.folder(site)) or site)._replace(tried_at=int(now)))
        if isinstance(trouble, Refused) and (not good or trouble.code in (*_OF_ONE_SERVER, "revoked")):
            raise Stop(trouble.sentence, trouble.cure, trouble.code) from None
        ends = when(certificate.valid_before, now)
        if not good:
            raise _ended(ends, trouble) from None
        if trouble.code == "cannot_sign":
            said = Trouble(f"Your certificate ends at {ends}, and cannot be renewed without you", "hubssh renew")
            store.machine.tell(f"hubssh: {at_site(store.sites(), site, said.line)}")
        return site


def _ended(at: str, trouble: Trouble) -> Trouble:
    """What to do once a certificate has ended: only a login helps, since the service renews none that has ended."""
    if trouble.code == "cannot_sign":
        return Trouble(f"Your certificate ended at {at}", "hubssh login", trouble.code)
    cure = trouble.cure if trouble.code == "clock_off" else "hubssh login"  # then it may be good as yet
    return Trouble(f"Your certificate ended at {at} ({trouble.sentence.rstrip('.')})", cure, trouble.code)


def _stop_for(store: Store, site: Site, host: str) -> None:
    """What keeps the certificate from opening a server, as far as the service can be asked. Raises `Stop`."""
    try:
        servers = servers_from(Holder(store, site, alone=True, limit=PATIENCE).get("/servers"), site.user)
    except Trouble:
        return  # the bastion has the next word
    site = store.update(site, servers=servers)
    configure(store)
    login = site.login_of(host)
    found = [one for one in servers if one.login == login]
    if not found:
        return
    stop = server_trouble(site, found[0])
    if stop is not None:
        raise Stop(stop.sentence, stop.cure, stop.code)


def server_trouble(site: Site, server: Server) -> Trouble | None:
    """What keeps the certificate of `site` from opening a server, as it was listed a moment ago."""
    whose = f"Your server {server.label}" if server.own else f"The server {server.label}"
    if server.state in ("starting", "stopping"):
        return Trouble(f"{whose} is {server.state}", "try again in a minute", f"server_{server.state}")
    if server.state != "running":
        cure = site.command("start", server.login) if server.own else "ask its owner to start it, then hubssh login"
        return Trouble(f"{whose} is stopped", cure, "server_stopped")
    runs = site.certificate.runs if site.certificate else {}
    if server.login not in runs:
        return Trouble(f"{whose} is not in your certificate", "hubssh login", "not_in_certificate")
    if server.run and runs[server.login] != server.run:
        return Trouble(f"{whose} was restarted since your certificate was made", "hubssh login", "server_restarted")
    return None


# -- the commands ----------------------------------------------------------------------------------------------------


def do_login(store: Store, asked: argparse.Namespace) -> None:
    """hubssh login"""
    machine = store.machine
    before = _site_before(store, asked.hub_url, asked.site)
    about, web = ask_about(machine, asked.hub_url or (before.public_url if before else ""), _ca_file(asked, before))
    before = _site_before(store, web.base)
    site = site_from(about, web, asked.zone or (before.zone if before else ""))
    site = site._replace(ca_file=web.ca_file, mode=asked.mode or (before.mode if before else "auto"))
    if before:
        kept = ("key", "own_key", "user", "certificate", "servers", "logged_in_at", "agent")
        site = site._replace(**{name: getattr(before, name) for name in kept})
    site, key_name = _with_key(store, site._replace(agent=site.agent if asked.agent is None else asked.agent), asked)
    wish = Wish(
        server=site.meant(asked.server) if asked.server or asked.start else "",
        only=bool(asked.server),
        start=asked.start,
        lifetime=asked.lifetime,
        browser=not asked.no_browser,
        other_user=asked.other_user,
        key_name=key_name,
    )
    if before is None:  # `hubssh start` knows where, also when this login ends with "no server runs"
        with store.lock(site):
            if store.load(store.folder(site)) is None:
                store.save(site._replace(key="", own_key=False) if key_name else site)
    _tell_login(store, log_in(store, site, web, wish))


def _site_before(store: Store, address: str, name: str = "") -> Site | None:
    """What is known of the site with this address; without one, of the site with this name, or of the latest."""
    if not address:
        return store.known(name)
    wanted = site_name(web_address(address))
    return next((one for one in store.sites() if one.name == wanted), None)


def _ca_file(asked: argparse.Namespace, before: Site | None) -> str:
    if asked.ca_file:
        return str(os.path.abspath(os.path.expanduser(asked.ca_file)))
    return before.ca_file if before else ""


def _with_key(store: Store, site: Site, asked: argparse.Namespace) -> tuple[Site, str]:
    """The site with the key that this login is for: the one named, the one of the last login, or a new one. For a new
    one the name that it gets once the login is approved: until then it lies beside the one that counts."""
    machine, folder = store.machine, store.folder(site)
    fresh = f"{os.getpid()}-{os.urandom(4).hex()}.new"  # another login may go on meanwhile
    if asked.key.partition(":")[0] == "agent":
        key = os.path.join(folder, f"from-agent.{fresh}.pub")
        key_from_agent(machine, asked.key.partition(":")[2], key)
        return site._replace(key=key, own_key=False), "from-agent.pub"
    if asked.key:
        key = os.path.abspath(os.path.expanduser(asked.key))
        public_line(machine, key)  # said now, not after the click
        return site._replace(key=key, own_key=False), ""
    if site.key and not asked.type and read(site.key) is not None:
        return site, ""
    kind = asked.type or "ed25519"
    name = f"id_{kind.replace('-', '_')}"
    key = os.path.join(folder, f"{name}.{fresh}")
    make_key(machine, key, kind)
    return site._replace(key=key, own_key=True), name


def _tell_login(store: Store, site: Site) -> None:
    machine, certificate = store.machine, site.certificate
    if certificate is None:
        return
    now = machine.clock()
    machine.say(f"You are {clean(site.user, 60)} at {site.public_url}.")
    machine.say(f"Your certificate is good until {when(certificate.valid_before, now)}. Now type:")
    sites = store.sites()
    for login in certificate.runs:
        machine.say(f"    {_to_type(store, sites, site, login)}")
    machine.answer(_status(sites, site, now))


def _to_type(store: Store, sites: list[Site], site: Site, login: str) -> str:
    """What to type for a server, or why ssh would lead that elsewhere."""
    astray = led_astray(sites, site, login)
    option = "" if store.is_default else f"-F {shell_word(os.path.join(store.ssh, 'config'))} "
    return astray.line if astray else f"ssh {option}{site.ssh(login)}"


def _host(sites: list[Site], site: Site, login: str) -> str | None:
    """How ssh calls a server; None where that leads elsewhere."""
    return None if led_astray(sites, site, login) else site.short(login)


def _status(sites: list[Site], site: Site, now: float) -> dict[str, Any]:
    certificate = site.certificate
    told: dict[str, Any] = {"site": site.public_url, "user": site.user, "certificate": None}
    if certificate is not None:
        told["certificate"] = {
            "serial": certificate.serial,
            "valid": now < certificate.valid_before,
            "valid_before": certificate.valid_before,
            "renew_until": certificate.renew_until,
            "servers": {login: _host(sites, site, login) for login in certificate.runs},
        }
    return told


def do_list(store: Store, asked: argparse.Namespace) -> None:
    """hubssh list"""
    machine = store.machine
    if asked.names:
        names = [one.typed(login) or login for one in store.sites() for login in one.logins()]
        for name in names:
            machine.say(name)
        machine.answer({"names": names})
        return
    site = store.known(asked.site)
    servers = servers_from(Holder(store, site).get("/servers"), site.user)
    site = store.update(site, servers=servers)
    configure(store)
    sites = store.sites()
    runs = site.certificate.runs if site.certificate else {}
    rows = [(one, runs.get(one.login) == one.run or (one.login in runs and not one.run)) for one in servers]
    for one, opened in rows:
        state = f"{one.state}, without SSH" if one.state == "running" and one.ssh is False else one.state
        command = _to_type(store, sites, site, one.login) if opened and one.state == "running" else ""
        machine.say(f"{one.label:24} {state:22} {command}".rstrip())
    if not servers:
        machine.say("You have no servers yet: hubssh start")
    shown = [
        {
            "label": one.label,
            "login": one.login,
            "host": _host(sites, site, one.login),
            "state": one.state,
            "ssh": one.ssh,
            "in_certificate": opened,
        }
        for one, opened in rows
    ]
    machine.answer({"site": site.public_url, "user": site.user, "servers": shown})


def do_start(store: Store, asked: argparse.Namespace) -> None:
    """hubssh start"""
    site = store.known(asked.site)
    about, web = ask_about(store.machine, site.public_url, site.ca_file)
    features = about.get("features")
    if not isinstance(features, dict) or features.get("start") is not True:
        raise Refused(
            "This site does not let SSH clients start servers",
            f"start it in JupyterHub ({clean(about.get('hub_url'), 200)}) with Enable SSH ticked, then hubssh login",
            "not_permitted",
        )
    site, key_name = _with_key(store, site, asked)
    wish = Wish(server=site.meant(asked.server), start=True, browser=not asked.no_browser, key_name=key_name)
    _tell_login(store, log_in(store, site, web, wish))


def do_stop(store: Store, asked: argparse.Namespace) -> None:
    """hubssh stop"""
    site = store.known(asked.site)
    login = site.meant(asked.server)
    answer = Holder(store, site).ask("DELETE", f"/servers/{login}")
    if answer.status not in (202, 204):
        raise advised(answer, store.machine.clock())
    label = site.label(login)
    store.machine.say(f"{label} stops." if answer.status == 202 else f"{label} has stopped.")
    store.machine.answer({"login": login, "stopped": answer.status == 204})


def do_renew(store: Store, asked: argparse.Namespace) -> None:
    """hubssh renew"""
    site = store.known(asked.site)
    with store.lock(site):
        site = renew(store, store.load(store.folder(site)) or site, alone=False)
    configure(store)
    _tell_login(store, site)


def do_status(store: Store, asked: argparse.Namespace) -> None:
    """hubssh status"""
    machine, site = store.machine, store.known(asked.site)
    now, certificate, sites = machine.clock(), site.certificate, store.sites()
    told = {**_status(sites, site, now), "sessions": None}
    machine.say(f"{site.public_url}, as {clean(site.user, 60) or 'nobody yet'}")
    if certificate is None:
        machine.say("No certificate: hubssh login")
    elif now >= certificate.valid_before:
        machine.say(f"Your certificate ended at {when(certificate.valid_before, now)}: hubssh login")
    else:
        machine.say(f"Certificate {certificate.serial}, good until {when(certificate.valid_before, now)}")
        if certificate.renew_until > now:
            until = when(certificate.renew_until, now)
            machine.say(
                f"Renewed by itself until {until}, while its servers run, by connections that begin before it ends"
            )
        for login in certificate.runs:
            machine.say(f"    {_to_type(store, sites, site, login)}")
        told["sessions"] = _sessions(store, site, now)
    machine.answer(told)


def _sessions(store: Store, site: Site, now: float) -> list[Any] | None:
    """The person's live sessions, shown; None where they cannot be learnt."""
    try:
        listed = Holder(store, site).get("/sessions").get("sessions")
    except Trouble as trouble:
        store.machine.say(f"Sessions: not known ({trouble.sentence.rstrip('.')})")
        return None
    if not isinstance(listed, list):
        return None
    sessions = [one for one in listed if isinstance(one, dict)]
    for one in sessions:
        since = one.get("since")
        begun = f"since {when(since, now)}" if isinstance(since, (int, float)) else ""
        where = clean(one.get("login") or one.get("server"), 60) or "jump mode"  # which may lead to several servers
        store.machine.say(f"Session: {where} from {clean(one.get('peer'), 60)} {begun}")
    return sessions


def do_logout(store: Store, asked: argparse.Namespace) -> int:
    """hubssh logout"""
    import shutil

    machine = store.machine
    sites = store.sites() if asked.all else [store.known(asked.site)]
    revoked, left = {}, False
    for site in sites:
        revoked[site.public_url] = given_back = give_back(store, site)
        ends = site.certificate.valid_before if site.certificate else 0
        if site.own_key and site.key:
            note = remove_from_agent(machine, site.key)
            if note:
                machine.tell(note)
        shutil.rmtree(store.folder(site), ignore_errors=True)
        if given_back:
            machine.say(f"Logged out of {site.public_url}: the certificate is revoked and removed.")
        elif ends <= machine.clock():
            machine.say(f"Logged out of {site.public_url}: the certificate had ended, and is removed.")
        else:
            left = True
            machine.say(
                f"Logged out of {site.public_url}: the certificate is removed here. It could not be revoked, and a "
                f"copy of it would count until {when(ends, machine.clock())}: revoke it at {site.public_url}/"
            )
    if store.sites():
        configure(store)
    else:
        exclude(store)
        shutil.rmtree(store.path, ignore_errors=True)
    machine.answer({"revoked": revoked})
    return 1 if left else 0


def do_check(store: Store, asked: argparse.Namespace) -> int:
    """hubssh check"""
    return run_check(store, asked.host)


# -- the doctor ------------------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    """What one step of the chain is like. `state`: ok, note, or wrong."""

    what: str
    state: str
    said: str
    cure: str = ""


def do_doctor(store: Store, asked: argparse.Namespace) -> int:
    """hubssh doctor"""
    machine = store.machine
    found: list[Finding] = []
    for one in _chain(store, asked):
        found.append(one)
        machine.say(f"{one.state.upper() if one.state == 'wrong' else one.state:6} {one.what}: {one.said}")
        if one.cure:
            machine.say(f"       What to do: {one.cure}")
        if one.state == "wrong":
            break
    well = all(one.state != "wrong" for one in found)
    machine.say("Everything works." if well else "")
    machine.answer({"well": well, "findings": [one._asdict() for one in found]})
    return 0 if well else 1


def _chain(store: Store, asked: argparse.Namespace) -> Iterator[Finding]:
    """From this machine to the notebook server. The first thing that is wrong is the last that is looked at."""
    machine = store.machine
    what = "OpenSSH"
    try:
        yield Finding(what, "ok", _openssh(machine))
        what = "login"
        site = store.known(asked.site)
        yield Finding(what, "ok", f"{clean(site.user, 60) or 'nobody'} at {site.public_url}")
        what = "network"
        web = Web(machine, site.public_url, site.ca_file)
        began, now = time.monotonic(), machine.clock()
        about = _about(web)
        yield Finding(what, "ok", f"{site.public_url} answers")
        what = "clock"
        yield _clock(about, now + (time.monotonic() - began) / 2)
        what = "configuration"
        yield _configuration(store, site)
        what = "bastion"
        yield _bastion(site)
        what = "host key"
        yield _host_key(store, site)
        what = "certificate"
        yield _certificate(store, site)
        what = "server"
        login = site.meant(asked.server) if asked.server else ""
        server, finding = _server(store, site, login)
        yield finding
        what = "pod"
        yield _pod(store, site, server)
        what = "capability"
        yield _capability(site)
    except Trouble as trouble:
        what = _ELSEWHERE.get(trouble.code, what)
        yield Finding(what, "wrong", trouble.sentence, trouble.cure)


_ELSEWHERE = {
    "hub_unavailable": "JupyterHub",
    "clock_or_certificate": "clock or web certificate",
    "other_site": "configuration",
}
"""What is wrong where the step that found it is not."""


def _openssh(machine: Machine) -> str:
    said = clean(machine.run("ssh", "-V").err, 60)
    match = re.search(r"OpenSSH[^0-9]*([0-9]+)\.([0-9]+)", said)
    if match and (int(match[1]), int(match[2])) < (8, 1):
        raise Trouble(f"{said} is too old to sign with", "update OpenSSH to 8.1 or newer")
    machine.run("ssh-keygen", "-?", alone=True)
    return said


def _clock(about: dict[str, Any], now: float) -> Finding:
    there = about.get("time")
    if not isinstance(there, (int, float)):
        return Finding("clock", "note", "the service does not tell its time")
    if abs(now - there) > CLOCK_TOLERANCE:
        raise clock_trouble(now - there)
    return Finding("clock", "ok", f"{abs(now - there):.0f} seconds off")


def _configuration(store: Store, site: Site) -> Finding:
    path = os.path.join(store.ssh, "config")
    if not is_included(store):
        cure = f"{_by_hand(store)} (hubssh login does, where it may write to that file)"
        raise Trouble(f"{path} does not begin with the line {_include_line(store)}", cure)
    for needed in (store.config, site.key, store.file(site, "known_hosts")):
        if read(needed) is None:
            raise Trouble(f"The file {needed} is missing", "hubssh login makes it anew")
    if not store.machine.windows and os.stat(site.key).st_mode & 0o077 and not site.key.endswith(".pub"):
        raise Trouble(
            f"The key {site.key} can be read by others, so ssh will not use it", f"chmod 600 {shell_word(site.key)}"
        )
    return Finding("configuration", "ok", f"{path} includes {store.config}")


def _bastion(site: Site) -> Finding:
    import socket

    host = site.hosts[0]
    try:
        with socket.create_connection((host, site.port), timeout=10) as connection:
            connection.settimeout(10)
            banner = connection.recv(255)
    except OSError as error:
        raise Trouble(
            f"{host} port {site.port} cannot be reached ({clean(error.strerror or str(error)) or 'no answer'})",
            "your network may not let SSH out: ask for that port, or try another network",
        ) from None
    if not banner.startswith(b"SSH-2.0-"):
        raise Trouble(
            f"{host} port {site.port} does not speak SSH", "a firewall or proxy stands between: ask its keeper"
        )
    return Finding("bastion", "ok", f"{host} port {site.port} answers {clean(banner.decode('ascii', 'replace'), 60)}")


def _ssh(store: Store, *words: str) -> tuple[int, str]:
    """ssh that asks nothing: its exit status, and the last line of what it says."""
    options = ("BatchMode=yes", "ConnectTimeout=15", "ControlPath=none", "LogLevel=ERROR")
    command = ["ssh", *(word for option in options for word in ("-o", option)), *words]
    done = store.machine.run(*command, alone=True, limit=60)
    lines = [line for line in (clean(line) for line in done.err.splitlines()) if line]
    telling = [line for line in lines if not re.search(r"closed by|Connection closed|kex_exchange", line)]
    return done.status, (telling or lines or [""])[-1] if "host key" not in done.err.lower() else clean(done.err)


def _host_key(store: Store, site: Site) -> Finding:
    """Whether the bastion shows a key that the site's authority signed: tried by a login without a key."""
    known = store.file(site, "known_hosts").replace("\\", "/")
    nothing = "NUL" if store.machine.windows else "/dev/null"
    strict = [f'UserKnownHostsFile="{known}"', f"GlobalKnownHostsFile={nothing}", "StrictHostKeyChecking=yes"]
    options = [word for option in [*strict, "PreferredAuthentications=none"] for word in ("-o", option)]
    _, said = _ssh(store, "-F", "none", *options, "-p", str(site.port), "-l", site.jump_login, site.hosts[0], "true")
    if "verification failed" in said.lower() or "host key" in said.lower():
        raise Trouble(
            f"{site.hosts[0]} shows a host key that is not its own",
            "do not connect: somebody may stand between. Ask the administrator whether the site's host keys were made "
            "anew; if so, hubssh login learns them",
        )
    if "permission denied" not in said.lower():  # it gets as far as that only behind a host key that was accepted
        raise Trouble(
            f"{site.hosts[0]} port {site.port} ends the connection before anybody can log in"
            f" ({said or 'without a reason'})",
            f"try again in a minute; ssh -v -p {site.port} {site.hosts[0]} shows more",
        )
    return Finding("host key", "ok", "signed by the site's own authority")


def _certificate(store: Store, site: Site) -> Finding:
    machine, certificate = store.machine, site.certificate
    now = machine.clock()
    if certificate is None:
        raise Trouble("You have no certificate", "hubssh login")
    line = read_text(store.certificate_file(site)).strip()
    if not line:
        raise Trouble(f"The file {store.certificate_file(site)} is missing", "hubssh login makes it anew")
    read_certificate(line, public_line(machine, site.key))
    if now >= certificate.valid_before:
        raise Trouble(f"Your certificate ended at {when(certificate.valid_before, now)}", "hubssh login")
    if now < certificate.valid_after:
        raise Trouble(
            f"Your certificate begins only at {when(certificate.valid_after, now)}", "set this machine's clock"
        )
    answer = Holder(store, site).ask("GET", "/certificates")
    if answer.status != 200:
        raise advised(answer, now)
    return Finding(
        "certificate", "ok", f"number {certificate.serial}, good until {when(certificate.valid_before, now)}"
    )


def _server(store: Store, site: Site, login: str) -> tuple[Server, Finding]:
    """The server that is asked about: the one named, else the first of the certificate, else the default one."""
    servers = servers_from(Holder(store, site).get("/servers"), site.user)
    site = store.update(site, servers=servers)
    wanted = login or next(iter(site.certificate.runs if site.certificate else ()), "") or quote(site.user)
    found = [one for one in servers if one.login == wanted]
    if not found:
        names = ", ".join(site.typed(one.login) or one.login for one in servers) or "none"
        raise Trouble(f"You have no server {site.label(wanted)}. Yours: {names}", site.command("start", wanted))
    configure(store)  # the connection that is tried next is led by what is known now
    trouble = server_trouble(site, found[0]) or led_astray(store.sites(), site, wanted)
    if trouble is not None:
        raise trouble
    said = f"{found[0].label} runs, and your certificate opens this run of it"
    if found[0].ssh is False:
        return found[0], Finding("server", "note", f"{said}, but it has not told of any SSH")
    return found[0], Finding("server", "ok", said)


def _pod(store: Store, site: Site, server: Server) -> Finding:
    """A real connection, just as the person makes it."""
    host = site.short(server.login)
    if site.certificate is not None and EXEC not in site.certificate.extensions:
        return Finding("pod", "note", "not tried, since you are not permitted to run commands")
    where = [] if store.is_default else ["-F", os.path.join(store.ssh, "config")]
    status, said = _ssh(store, *where, host, "true")
    if status == 255 and server.ssh is False:
        cure = f"{site.command('stop', server.login)}, start it in JupyterHub with Enable SSH ticked, then hubssh login"
        raise Trouble(f"{server.label} runs without SSH", cure if server.own else "ask its owner to do that", "no_ssh")
    if status == 255:
        raise Trouble(
            f"ssh {shell_word(host)} fails: {said or 'without a reason'}",
            "the server may run without SSH, or have just ended: hubssh list shows it. ssh -v shows more",
        )
    way = "end to end" if site.jumps else "through the bastion"
    return Finding("pod", "ok", f"ssh {shell_word(host)} works, {way}")


def _capability(site: Site) -> Finding:
    extensions = site.certificate.extensions if site.certificate else []
    missing = [meaning for name, meaning in MEANINGS.items() if name not in extensions]
    if not missing:
        return Finding("capability", "ok", "nothing is kept from you")
    return Finding(
        "capability", "note", f"not permitted to you: {', '.join(missing)}", "ask the administrator of the hub"
    )


# -- the command line ------------------------------------------------------------------------------------------------

HELP = """\
SSH into your JupyterHub servers: one command, one click.

  hubssh login https://ssh.example.org   once a day: approve in the browser
  ssh gpu.hub                            then ssh, scp, rsync, git, VS Code and PyCharm find your servers by name
  hubssh doctor                          when something does not work: what it is, and what to do

alice's default server is alice.hub, her server "gpu" is gpu.hub, and bob's server "lab", if he shares it with her, is
bob+lab.hub. The certificate is for the servers that run; ssh renews it by itself, up to a day after the login.
"""
EPILOG = """\
Exit status: 0 done, 1 not done and the reason was said, 2 the command line cannot be understood, 130 stopped by Ctrl-C.
Everything that hubssh keeps is in ~/.ssh/hubssh; `hubssh logout` revokes it, removes it, and leaves no line behind.
"""
COMMANDS: dict[str, tuple[str, str]] = {
    "login": ("get a certificate, approved in the browser", "hubssh login https://ssh.example.org\n  hubssh login"),
    "list": ("your servers and what to type for them", "hubssh list\n  hubssh list --json"),
    "start": ("start a server, and get a certificate for it: one click", "hubssh start\n  hubssh start gpu"),
    "stop": ("stop a server", "hubssh stop gpu"),
    "status": ("your certificate and your live sessions", "hubssh status"),
    "renew": ("renew the certificate now; ssh does that by itself", "hubssh renew"),
    "logout": ("revoke the certificate and remove everything", "hubssh logout\n  hubssh logout --all"),
    "doctor": ("find the first thing that is wrong, and its cure", "hubssh doctor\n  hubssh doctor gpu"),
    "check": ("what ssh runs before it connects", "hubssh check gpu.hub"),
    "completion": ("completion for a shell", 'eval "$(hubssh completion bash)"\n  hubssh completion fish | source'),
}
SILENT = ("check", "completion")
"""Commands whose answer is for a program that has its own way to read it: ssh, and shells."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return parsers()[0]


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The command line, and that of each command."""
    import argparse

    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="hubssh", description=HELP, epilog=EPILOG, formatter_class=raw)
    made.add_argument("--version", action="version", version=f"hubssh {VERSION}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--site", default="", metavar="NAME", help="which login, where you have several: ssh.example.org"
    )
    common.add_argument("--ssh-dir", default="", metavar="DIR", help="instead of ~/.ssh; then use ssh -F DIR/config")
    answering = argparse.ArgumentParser(add_help=False)
    answering.add_argument("--json", action="store_true", help="answer in JSON")
    all_commands = made.add_subparsers(dest="command", metavar="COMMAND")
    of: dict[str, argparse.ArgumentParser] = {}
    for name, (meaning, examples) in COMMANDS.items():
        of[name] = all_commands.add_parser(
            name,
            help=meaning,
            description=f"{meaning[0].upper()}{meaning[1:]}.",
            epilog=f"examples:\n  {examples}",
            formatter_class=raw,
            parents=[common] if name in SILENT else [answering, common],
        )
    _login_arguments(of["login"])
    for name in ("start", "stop", "doctor"):
        of[name].add_argument("server", nargs="?", default="", help="its name, like gpu; left out: your default server")
    of["start"].add_argument("--no-browser", action="store_true", help="print the address only")
    of["start"].set_defaults(key="", type="")
    for name in SILENT:
        of[name].set_defaults(json=False)
    of["list"].add_argument("--names", action="store_true", help="only the names that are known here, without asking")
    of["logout"].add_argument("--all", action="store_true", help="out of every site")
    of["check"].add_argument("host", help="the host name as it was typed")
    of["completion"].add_argument("shell", choices=tuple(SHELLS))
    return made, of


def _login_arguments(login: argparse.ArgumentParser) -> None:
    import argparse

    add = login.add_argument
    add(
        "hub_url",
        nargs="?",
        default="",
        metavar="HUB_URL",
        help="the SSH page of your hub; left out: where you were last",
    )
    add("--server", default="", metavar="NAME", help="a certificate for this server only")
    add("--start", action="store_true", help="start the server (--server, or the default one) if it does not run")
    add("--lifetime", type=int, default=0, metavar="SECONDS", help="shorter than the site's own")
    add("--key", default="", metavar="FILE", help="your own key; its .pub if an agent holds it; or agent[:FINGERPRINT]")
    add("--type", choices=("ed25519", "ed25519-sk", "ecdsa-sk"), help="make a key of this type; -sk: on a security key")
    add("--mode", choices=("auto", "jump", "direct"), help="jump: end to end; direct: the bastion is the SSH server")
    add("--no-browser", action="store_true", help="print the address only")
    add("--agent", action=argparse.BooleanOptionalAction, help="give the ssh-agent the key; what is said stays so")
    add("--ca-file", default="", metavar="FILE", help="trust this authority for https as well")
    add("--zone", default="", help="accept names that end so, where the site does not use .hub")
    add("--other-user", action="store_true", help="it is meant that somebody else logs in than the last time")


def do_completion(_store: Store, asked: argparse.Namespace) -> None:
    """hubssh completion"""
    options = {
        name: list(dict.fromkeys(re.findall(r"--[a-z-]+", one.format_usage()))) for name, one in parsers()[1].items()
    }
    described = [(name, meaning) for name, (meaning, _) in COMMANDS.items()]
    parts = {
        "commands": " ".join(COMMANDS),
        "shells": " ".join(SHELLS),
        "zsh": "\n".join(f"    '{name}:{meaning}'" for name, meaning in described),
        "cases": "\n".join(f"        {name}) options='{' '.join(options[name])}' ;;" for name in COMMANDS),
        "fish": "\n".join(f"complete -c hubssh -n __fish_use_subcommand -a {name} -d '{of}'" for name, of in described),
        "fish_options": "\n".join(
            f"complete -c hubssh -n '__fish_seen_subcommand_from {name}' -l {option[2:]}"
            for name in COMMANDS
            for option in options[name]
        ),
        "powershell": "\n".join(f"        '{name}' = '{' '.join(options[name])}'" for name in COMMANDS),
    }
    script = SHELLS[asked.shell]
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    print(script, end="")


_BASH = """\
_hubssh() {
    local options name quoted IFS=$' \\n'
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "@commands@" -- "$2"))
        return
    fi
    case ${COMP_WORDS[1]} in
@cases@
    esac
    case ${COMP_WORDS[1]}:$2 in
        *:-*) COMPREPLY=($(compgen -W "$options" -- "$2")) ;;
        start:*|stop:*|doctor:*)
            while IFS= read -r name; do  # a name may have blanks
                printf -v quoted %q "$name"
                [[ $name == "$2"* || $quoted == "$2"* ]] && COMPREPLY+=("$quoted")
            done < <(hubssh list --names 2>/dev/null) ;;
        completion:*) COMPREPLY=($(compgen -W "@shells@" -- "$2")) ;;
    esac
}
complete -F _hubssh hubssh
"""
_ZSH = """\
#compdef hubssh
_hubssh() {
    local -a commands
    local options
    commands=(
@zsh@
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
@cases@
    esac
    if [[ $PREFIX == -* ]]; then
        compadd -- ${=options}
        return
    fi
    case $words[2] in
        start|stop|doctor) compadd -- ${(f)"$(hubssh list --names 2>/dev/null)"} ;;
        completion) compadd @shells@ ;;
    esac
}
compdef _hubssh hubssh
"""
_FISH = """\
complete -c hubssh -f
@fish@
@fish_options@
complete -c hubssh -n '__fish_seen_subcommand_from start stop doctor' -a '(hubssh list --names 2>/dev/null)'
complete -c hubssh -n '__fish_seen_subcommand_from completion' -a '@shells@'
"""
_POWERSHELL = """\
Register-ArgumentCompleter -Native -CommandName hubssh -ScriptBlock {
    param($word, $line, $cursor)
    $options = @{
@powershell@
    }
    $before = @($line.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursor } | ForEach-Object { "$_" })
    $command = if ($before.Count -gt 1) { $before[1] } else { '' }
    $found = if (-not $command) { '@commands@' -split ' ' }
        elseif ($word -like '-*') { "$($options[$command])" -split ' ' }
        elseif ($command -in 'start', 'stop', 'doctor') { hubssh list --names 2>$null }
        elseif ($command -eq 'completion') { '@shells@' -split ' ' }
    $typed = $word.Trim([char[]]"'`"")
    $found | Where-Object { $_ -and $_.StartsWith($typed) } | ForEach-Object {
        $shown = if ($_ -match '^[A-Za-z0-9_.+-]+$') { $_ } else { "'$_'" }
        [System.Management.Automation.CompletionResult]::new($shown, $_, 'ParameterValue', $_)
    }
}
"""
SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH, "powershell": _POWERSHELL}


def main(arguments: Sequence[str] | None = None, machine: Machine | None = None) -> int:
    """Do what the command line says; its exit status."""
    machine = machine or Machine()
    for stream in (sys.stdout, sys.stderr):  # a terminal of another alphabet gets question marks, not a traceback
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    made = parser()
    asked = made.parse_args(arguments)
    if not asked.command:
        made.print_help()
        return 2
    machine.json = asked.json
    doing: dict[str, Callable[[Store, argparse.Namespace], int | None]] = {
        "login": do_login,
        "list": do_list,
        "start": do_start,
        "stop": do_stop,
        "status": do_status,
        "renew": do_renew,
        "logout": do_logout,
        "doctor": do_doctor,
        "check": do_check,
        "completion": do_completion,
    }
    try:
        status = doing[asked.command](Store(machine, asked.ssh_dir), asked) or 0
        for one in machine.left:
            machine.tell(f"hubssh: {one}")
        return status
    except Trouble as trouble:
        machine.answer({"error": trouble.code, "error_description": trouble.sentence, "cure": trouble.cure})
        if not machine.json:
            machine.tell(f"hubssh: {trouble.line}")
        return 1
    except KeyboardInterrupt:
        machine.answer({"error": "interrupted", "error_description": "Stopped by you.", "cure": ""})
        if not machine.json:
            machine.tell("\nhubssh: stopped by you.")
        return 130
    except BrokenPipeError:  # `hubssh list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
