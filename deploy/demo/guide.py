"""Why: what to type in another terminal, ready to copy, with the addresses and files of this very demo."""

from __future__ import annotations

import getpass
import shlex

from deploy.demo.scene import Scene


def guide(scene: Scene) -> str:
    """The text that `make demo` ends with."""
    port, unix_user = scene.ports.bastion, getpass.getuser()
    return f"""
JupyterHub    {scene.hub_url}    users alice and bob, password {scene.password}
Certificates  {scene.public_url}

In another terminal, with nothing but ssh and a browser:

  cd {shlex.quote(str(scene.laptop))}
  ssh -F bare_config -p {port} alice@127.0.0.1

With hubssh, which asks for one click a day (here with a folder of its own instead of ~/.ssh):

  curl -fsS {scene.public_url}/hubssh -o hubssh
  {hubssh_command("login", scene.public_url)}
  ssh -F ssh/config alice.hub
  {hubssh_command("doctor")}

By hand: log in as alice at {scene.public_url}/ , paste key.pub and save what you get as key-cert.pub in that
folder. Or, as scripts do, with a token:

  ssh-keygen -q -t ed25519 -N '' -f key
  {fetch_command(scene)}
  ssh -F ssh_config -p {port} alice@127.0.0.1
  scp -F ssh_config -P {port} key.pub alice@127.0.0.1:
  ssh -F ssh_config -J jump@127.0.0.1:{port} {unix_user}@alice.hub

Stop alice's server in JupyterHub: the session ends, and the certificate is worth nothing any more.
Logs are in {scene.logs}

Ctrl-C ends all of this and removes it."""


def hubssh_command(*words: str) -> str:
    """hubssh as it was fetched, keeping its things in a folder of its own instead of ~/.ssh."""
    return shlex.join(["python3", "hubssh", words[0], "--ssh-dir", "ssh", *words[1:]])


def fetch_command(scene: Scene) -> str:
    """Get a certificate with curl: the token is in a file, since command lines can be read by everybody."""
    body = r"{\"public_key\":\"$(cat key.pub)\"}"
    extract = "import json, sys; print(json.load(sys.stdin)['certificate'])"
    return (
        f'curl -fsS -H @token-header -H "Content-Type: application/json" -d "{body}" \\\n'
        f'    {scene.public_url}/certificates | python3 -c "{extract}" > key-cert.pub'
    )
