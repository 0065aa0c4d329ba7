"""What the parity tests share."""

import pytest
from workshop import BEAR, Workshop


def pytest_report_header() -> str:
    """Says at the top which clip the tests run on."""
    return f"parity clip: {BEAR if BEAR.is_dir() else 'synthetic (the real clip is missing; its tests skip)'}"


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Workshop:
    """See `Workshop`."""
    return Workshop.of_session(tmp_path_factory)
