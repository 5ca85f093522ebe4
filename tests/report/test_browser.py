"""A report in a real browser: nothing is asked of a network, nothing runs off the side of a phone."""

import pytest

from tests.report.browser import EXECUTABLE, browser
from tests.report.examples import everything

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="needs Chromium: install the package `chromium`")

WIDEST = "Math.max(...[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right))"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
SMALLEST = (
    "Math.min(...[...document.querySelectorAll('svg text')].map(t => "
    "parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a))"
)
OUTSIDE = """
    [...document.querySelectorAll('figure > svg')].flatMap(svg => [...svg.querySelectorAll('text')].filter(text => {
        const outer = svg.getBoundingClientRect(), inner = text.getBoundingClientRect();
        return inner.left < outer.left - 1 || inner.right > outer.right + 1
            || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
    }).map(text => text.textContent))
"""


def test_phone_and_desk_light_and_dark(tmp_path):
    file = everything(tmp_path / "page.html")
    grounds = {}
    with browser() as chromium:
        for width in (320, 390, 1200):
            for dark in (False, True):
                chromium.open(file, width, dark=dark)
                assert chromium.evaluate("document.documentElement.scrollWidth") <= width
                assert chromium.evaluate(WIDEST) <= width
                assert chromium.evaluate(OUTSIDE) == []
                grounds[dark] = chromium.evaluate(BACKGROUND)
            assert chromium.evaluate(SMALLEST) >= 8
        chromium.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert chromium.evaluate("document.querySelectorAll('svg').length") > 5
        chromium.open(file, 390)
        chromium.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert chromium.evaluate("document.documentElement.scrollWidth") <= 390
        assert set(chromium.requests) == {file.as_uri()}
        assert chromium.problems == []
    assert grounds == {False: "rgb(255, 255, 255)", True: "rgb(20, 23, 27)"}
