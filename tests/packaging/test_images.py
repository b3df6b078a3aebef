"""What can be known of the images without building them: that what they copy is there, is all, and runs."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
RECIPES = ("Dockerfile", "Dockerfile.notebook", "Dockerfile.openssh")


def steps(recipe: str) -> list[str]:
    """The recipe's instructions, continued lines joined, comments gone."""
    lines = [line for line in (IMAGES / recipe).read_text().splitlines() if not line.startswith("#")]
    return [one for one in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if one]


def copied(recipe: str) -> list[tuple[str, str]]:
    """(from the repository, to the image)"""
    pairs = (one.split()[1:] for one in steps(recipe) if one.startswith("COPY ") and "--from" not in one)
    return [(source, target) for source, target in pairs]


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_copied_is_there_and_not_ignored(recipe: str) -> None:
    kept = [line[1:] for line in (IMAGES / f"{recipe}.dockerignore").read_text().splitlines() if line.startswith("!")]
    for source, _target in copied(recipe):
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, one) for one in kept), source


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_image_ends_as_somebody_who_is_not_root(recipe: str) -> None:
    users = [one.split()[1] for one in steps(recipe) if one.startswith("USER ")]
    assert users[-1] in ("65532:65532", "${NB_UID}")


def test_a_user_who_is_in_no_list_of_users_has_a_home() -> None:
    """Else asyncssh refuses to start; not every container runtime sets one."""
    (environment,) = [one for one in steps("Dockerfile") if one.startswith("ENV ")]
    assert "HOME=/nonexistent" in environment.split()


def test_nothing_is_installed_that_the_lock_does_not_name() -> None:
    (install,) = [one for one in steps("Dockerfile") if "pip " in one]
    assert "--require-hashes --only-binary :all: -r /tmp/runtime.txt" in install
    assert ("deploy/lock/runtime.txt", "/tmp/runtime.txt") in copied("Dockerfile")


def test_no_host_key_stays_in_a_notebook_image() -> None:
    (install,) = [one for one in steps("Dockerfile.notebook") if "openssh-server" in one]
    assert "rm -rf" in install
    assert "/etc/ssh/ssh_host_*" in install


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["-m", "api", "check-settings", "--list"], 0, "SSH_API_PUBLIC_URL"),
        (["-m", "bastion", "settings"], 0, "BASTION_LISTEN_PORT"),
        (["{image}/cluster_secrets.py", "make", "--namespace=x", "--internal=y"], 1, "This is no pod"),
    ],
)
def test_what_the_image_copies_is_enough_for(tmp_path: Path, command: list[str], status: int, words: str) -> None:
    for source, target in copied("Dockerfile"):
        if not target.startswith("/opt/jupyterhub-bastion"):
            continue
        place = tmp_path / target.lstrip("/")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
    image = tmp_path / "opt" / "jupyterhub-bastion"
    done = subprocess.run(
        [sys.executable, *(part.format(image=image) for part in command)],
        cwd=image,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(image), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert words in done.stdout + done.stderr
    assert not list(image.rglob("__pycache__"))
