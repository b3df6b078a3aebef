"""Why: images bring sshds of many years, and each new release may describe itself in new words."""

from __future__ import annotations

import runpy

import pytest

from tests.support.notebook import FOLDER

SSHD = runpy.run_path(str(FOLDER / "sshd.py"))


@pytest.mark.parametrize(
    "shown",
    [
        b"usepam no\nmacs hmac-sha2-256-etm@openssh.com,hmac-sha1\nsetenv PROBE=a\\b\n",  # up to 10.0
        b"UsePAM no\nMacs hmac-sha2-256-etm@openssh.com,hmac-sha1\nSetEnv PROBE=a\\b\n",  # 10.6
    ],
)
def test_what_an_sshd_says_of_itself_is_understood_in_old_and_new_spelling(shown: bytes) -> None:
    defaults = SSHD["settings_shown"](shown)
    assert SSHD["Sshd"]("/usr/sbin/sshd", defaults).escapes
    assert SSHD["_algorithms"](defaults)[-1] == "MACs hmac-sha2-256-etm@openssh.com"
    assert SSHD["_known"]("UsePAM no", defaults) == ["UsePAM no"]
