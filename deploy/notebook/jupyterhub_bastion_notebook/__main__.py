"""Exists so that it can be started by module name (`python3 -m …`) and by folder (`python3 /path/to/folder`)."""

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before any import that a user's file may shadow

# `-m` puts the working directory first on the path, the folder form this folder: in the first a user's `queue.py`,
# in the second our own modules would stand in for the standard library's.
sys.path[:] = [
    os.path.dirname(_FOLDER),  # noqa: PTH120
    *(entry for entry in sys.path if entry and os.path.abspath(entry) not in (_FOLDER, os.getcwd())),  # noqa: PTH100, PTH109
]

from jupyterhub_bastion_notebook.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
