"""Why: the command line of the demo; `make demo` calls it in the environment it needs."""

from __future__ import annotations

import argparse
import functools
import sys

from deploy.demo.family import run_and_leave_nothing
from deploy.demo.stage import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="JupyterHub with SSH, on this machine.")
    parser.add_argument("--check", action="store_true", help="try everything with OpenSSH, then end")
    arguments = parser.parse_args()
    return run_and_leave_nothing(functools.partial(play, check=arguments.check))


if __name__ == "__main__":
    sys.exit(main())
