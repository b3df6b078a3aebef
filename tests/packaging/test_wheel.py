"""What is installed is whole: a wheel holds the pages, the migrations, and runs from anywhere."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.hub import free_port
from tests.support.processes import die_with_parent

ROOT = Path(__file__).parents[2]

SERVE = """
import os, sys
import api
from api.__main__ import main
assert api.__file__.startswith(sys.argv[1]), api.__file__
sys.exit(main(["serve"], os.environ))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip install .` builds it, from a copy, since a build leaves folders behind."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not in this environment: a wheel cannot be built without the network")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("ca", "api", "bastion"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_every_file_that_is_no_code_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "ca", "api", "bastion"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert tracked
    assert set(tracked) - inside == set()


def test_the_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ca", "api", "bastion"}


@pytest.fixture(scope="module")
def address(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The api, run from what was installed and from a folder that holds nothing of ours."""
    elsewhere, state = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("state")
    public = free_port()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SERVE, str(installed)],
        cwd=elsewhere,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(installed),
            "SSH_API_HUB_TOKEN": "x" * 64,
            "SSH_API_HUB_URL": "http://127.0.0.1:1",
            "SSH_API_STATE_DIRECTORY": str(state),
            "SSH_API_PUBLIC_URL": f"http://127.0.0.1:{public}",
            "SSH_API_LISTEN_PORT": str(public),
            "SSH_API_INTERNAL_PORT": str(free_port()),
        },
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening" in line and '"internal"' in line:
                break
        yield f"http://127.0.0.1:{public}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_an_installed_api_makes_its_database(address: str) -> None:
    answer = httpx.get(f"{address}/readyz", trust_env=False)
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


def test_an_installed_api_serves_its_page_and_what_the_page_loads(address: str) -> None:
    page = httpx.get(f"{address}/", trust_env=False)
    assert page.status_code == 200
    assert "<html" in page.text
    styles = [part.partition('"')[0] for part in page.text.split('href="')[1:] if ".css" in part.partition('"')[0]]
    assert styles
    for style in styles:
        found = httpx.get(f"{address}{style.removeprefix(address)}", trust_env=False)
        assert found.status_code == 200, style


def test_hubssh_is_a_distribution_of_its_own_with_one_module_and_one_command(tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not in this environment: a wheel cannot be built without the network")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "deploy" / "client", source, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (made,) = tmp_path.glob("hubssh-*.whl")
    with zipfile.ZipFile(made) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
        (scripts,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert names == ["hubssh.py"]
    assert "Requires-Python: >=3.9" in metadata
    assert "Requires-Dist" not in metadata
    assert "hubssh = hubssh:main" in scripts
