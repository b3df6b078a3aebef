"""Why: pods will have newer sshds than this machine: a server that is named like a suite runs with that suite's.

The pod side looks for OpenSSH where distributions keep it. A mount namespace of its own puts the newer one there (needs
root); then the true pod side takes over this process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_NEWNS, _BIND, _REC, _PRIVATE = 0x20000, 4096, 16384, 1 << 18
_TRUE = Path(__file__).parents[2] / "deploy" / "notebook" / "jupyterhub_bastion_notebook"
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Take the place of the pod side, with its arguments."""
    folder = Path(os.environ["SSH_TEST_OPENSSH"]) / (os.environ.get("JUPYTERHUB_SERVER_NAME") or "own")
    if folder.is_dir():
        if _libc.unshare(_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "no mount namespace")
        _mount("none", "/", _REC | _PRIVATE)
        _mount(str(folder / "sbin" / "sshd"), "/usr/sbin/sshd", _BIND)
        _mount(str(folder / "libexec"), "/usr/lib/openssh", _BIND)
    os.execv(sys.executable, [sys.executable, str(_TRUE), *sys.argv[1:]])


def _mount(source: str, target: str, flags: int) -> None:
    if _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


if __name__ == "__main__":
    main()
