"""What all tests of pages share."""

import shutil

import pytest
from webdriver import Browser, missing
from workshop import TARGET


@pytest.fixture(scope="session")
def snow_ort() -> str:
    """The program; without it or a browser, whoever asks is skipped."""
    if (why := missing()) is not None:
        pytest.skip(why)
    program = shutil.which("snow-ort", path=TARGET)
    if program is None:
        pytest.skip(f"snow-ort is not built in {TARGET}")
    return program


@pytest.fixture(scope="module")
def browser(page):
    """A browser of a desk's size with the module's `page`."""
    with Browser() as browser:
        browser.look(1100, 900)
        browser.open(page)
        yield browser
