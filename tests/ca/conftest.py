"""Why: one profile for the properties, and one set of CA keys for a run, since making keys is what takes time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ca.signer import FileSigner
from tests.ca.makers import CheckedSigner

settings.register_profile(
    "ca", max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ca")


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> CheckedSigner:
    """A signer whose every certificate is read by `ssh-keygen` as well."""
    return CheckedSigner(FileSigner(Path(tmp_path_factory.mktemp("ca")), None))
