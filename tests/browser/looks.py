"""How pages look, at each width, light and dark."""

import pytest

looks = pytest.mark.parametrize("color_scheme", ["light", "dark"])

widths = pytest.mark.parametrize("width", [1280, 390])

BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}


def assert_fits(page):
    """Nothing makes the page wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
