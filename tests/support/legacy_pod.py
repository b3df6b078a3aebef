"""Why: PrimeHub's pods know nothing of this bastion: a plain sshd, and a key API that answers `GET /publickey`.

    legacy_pod.py ADDRESS SSH_PORT KEY_PORT

What its `publickey_api.py` does, no more: port KEY_PORT, plain HTTP; `/publickey` is the text of
`~/.ssh/authorized_keys`, any other path an empty 200. It ends with its sshd, and its sshd with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOME = Path(os.environ["HOME"])
KEYS = HOME / ".ssh" / "authorized_keys"


class PublicKeys(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = KEYS.read_bytes() if self.path == "/publickey" and KEYS.exists() else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


def main(address: str, ssh_port: str, key_port: str) -> int:
    if not (HOME / "host_key").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(HOME / "host_key")], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation needs it
    configuration = HOME / "sshd_config"
    configuration.write_text(
        f"ListenAddress {address}:{ssh_port}\nHostKey {HOME}/host_key\nPidFile none\nAuthorizedKeysFile {KEYS}\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"SetEnv POD={HOME.name} SHLVL=1\n"
    )
    sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)])
    signal.signal(signal.SIGTERM, lambda *_: sshd.terminate())
    server = ThreadingHTTPServer((address, int(key_port)), PublicKeys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return sshd.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
