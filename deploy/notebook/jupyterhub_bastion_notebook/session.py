"""Exists for servers whose HOME is not their account's: several of them on one account, as with local spawners.

sshd starts every session in the home that /etc/passwd names, which would then be somebody else's. A forced command
moves it to the server's own HOME and then does what the client asked, in the account's shell, by exec: same process,
same standard input, same exit status, same signals. Not used where both homes are the same, as in containers.

A forced command in sshd's configuration replaces `command=` of an authorized_keys line and `force-command` of a
certificate, so a key that was meant for one command would open everything. The script therefore looks which
key it was (`ExposeAuthInfo`) and turns such keys away; certificates of a foreign authority too, since what they force
cannot be seen from here.
"""

from __future__ import annotations

import shlex
from pathlib import Path

_SCRIPT = r"""# Written by jupyterhub-bastion-notebook: one SSH session, in the notebook server's home.
unset SHLVL
turn_away() {
    printf '%s\n' "$1" >&2
    exit 1
}
[ -r "$SSH_USER_AUTH" ] || turn_away "This server cannot see which key you came with, so it cannot let you in."
while read -r method algorithm blob rest <&3; do
    [ "$method" = publickey ] || continue
    [ -r AUTHORIZED_KEYS ] || continue
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line#"${line%%[!	 ]*}"}
        case $line in '#'* | '') continue ;; esac
        options=${line%%"$blob"*}
        case $algorithm in
        *-cert-v0*)
            case $line in *[cC][eE][rR][tT]-[aA][uU][tT][hH][oO][rR][iI][tT][yY]*)
                turn_away "Certificates cannot be used here while authorized_keys has a cert-authority line."
            esac ;;
        *)
            [ "$options" = "$line" ] && continue
            case $options in *[cC][oO][mM][mM][aA][nN][dD]=*)
                turn_away "This key may only run one command, which is not supported here."
            esac ;;
        esac
    done <AUTHORIZED_KEYS
done 3<"$SSH_USER_AUTH"
unset SSH_USER_AUTH
cd HOME_FOLDER || printf '%s\n' "The notebook server's home cannot be entered." >&2
if [ "${SSH_ORIGINAL_COMMAND+set}" ]; then
    set -- "$SSH_ORIGINAL_COMMAND"
    unset SSH_ORIGINAL_COMMAND
    unset method algorithm blob rest line options OLDPWD
    exec SHELL_PROGRAM -c "$1"
fi
unset method algorithm blob rest line options OLDPWD
exec SHELL_PROGRAM -l
"""

FIRST_SHELL_LEVEL = b"1"
"""SHLVL for the session's outer shell. bash reads ~/.bashrc when sshd starts it, unless it is a nested shell: the
outer one, which only starts the script, must not; the script unsets SHLVL so that the inner one does."""


def script(home: Path, shell: str, authorized_keys: Path) -> bytes:
    """The text of the script, for /bin/sh."""
    text = (
        _SCRIPT.replace("AUTHORIZED_KEYS", shlex.quote(str(authorized_keys)))
        .replace("HOME_FOLDER", shlex.quote(str(home)))
        .replace("SHELL_PROGRAM", shlex.quote(shell or "/bin/sh"))
    )
    return text.encode("utf-8", "surrogateescape")
