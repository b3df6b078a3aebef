"""Why: the command line of the demo; `make demo` calls it in the environment it needs."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path

from deploy.demo.family import run_and_leave_nothing
from deploy.demo.scene import ROOT
from deploy.demo.stage import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="JupyterHub with SSH, on this machine.")
    parser.add_argument("--check", action="store_true", help="try everything with OpenSSH, then end")
    arguments = parser.parse_args()
    hub_bin = Path(os.environ.get("HUB6_BIN") or ROOT / ".venv" / "hub" / "bin").absolute()
    if not (hub_bin / "jupyterhub").exists():
        parser.error(f"there is no JupyterHub in {hub_bin}: start the demo with `make demo`")
    return run_and_leave_nothing(functools.partial(play, hub_bin=hub_bin, check=arguments.check))


if __name__ == "__main__":
    sys.exit(main())
