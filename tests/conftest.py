"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with parts of the real data sets."""
    folder = os.environ.get("AMALGAM_DATA")
    if not folder:
        pytest.skip("set AMALGAM_DATA to the folder with the real images to run this test")
    return Path(folder)
