"""Why: shows what the spawner hands to the pod side; it notes that in the server's home and becomes the server."""

import json
import os
import sys
from pathlib import Path

own, command = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
variables = {name: value for name, value in os.environ.items() if name.startswith("SSH_BASTION_")}
note = Path(os.environ["HOME"]) / f"pod-side-{os.environ['JUPYTERHUB_SERVER_NAME']}.json"
note.write_text(json.dumps({"arguments": own, "command": command, "environment": variables}))
os.execvp(command[0], command)
