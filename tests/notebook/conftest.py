"""Why: each test has its own stand-in api and its own notebook server; nothing of either is left afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.enrolment_api import EnrolmentApi
from tests.support.notebook import ACCOUNT, Notebook


@pytest.fixture
def enrolment_api(tmp_path: Path) -> Iterator[EnrolmentApi]:
    folder = tmp_path / "api"
    folder.mkdir()
    api = EnrolmentApi(folder)
    api.start()
    yield api
    api.stop()


@pytest.fixture(params=["account home", "own home"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The server's HOME: its account's as in a container, or one of its own as with local spawners."""
    if request.param == "account home":
        return Path(ACCOUNT.pw_dir)
    return _own_home(tmp_path)


@pytest.fixture
def notebook(tmp_path: Path, enrolment_api: EnrolmentApi) -> Iterator[Notebook]:
    """Not started yet; HOME is a folder of the test's."""
    notebook = Notebook(tmp_path, enrolment_api, _own_home(tmp_path))
    yield notebook
    notebook.end()


@pytest.fixture
def notebook_anywhere(tmp_path: Path, enrolment_api: EnrolmentApi, anywhere: Path) -> Iterator[Notebook]:
    """Not started yet; once with each kind of HOME."""
    notebook = Notebook(tmp_path, enrolment_api, anywhere)
    yield notebook
    notebook.end()


def _own_home(tmp_path: Path) -> Path:
    home = tmp_path / "home of 'alice'"
    home.mkdir(exist_ok=True)
    return home
