"""Why: tests that ask whether a program is gone rely on what ended it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import end_marked

WITHOUT_ITS_MARK = """
import os, signal, time
def go_on(*_):
    os.execve("/bin/sleep", ["sleep", "60"], {})
signal.signal(signal.SIGTERM, go_on)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_process_whose_environment_is_gone_is_waited_for_as_long_as_it_runs(tmp_path: Path) -> None:
    mark = {"TEST_MARK": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_ITS_MARK], env={**os.environ, **mark}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end_marked("TEST_MARK", str(tmp_path), grace=0.5)
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "Z"
        assert process.wait() == -9
