# SPDX-License-Identifier: Apache-2.0
"""The landing page in a real browser, on a desk and on a phone."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from tests.serve.served import make_every_kind_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serve.served import Served

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
ALONE: Final = (
    "--headless",
    "--no-sandbox",
    "--hide-scrollbars",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""It shows the page, and talks to nobody."""
# A window cannot be as narrow as a phone, a frame can. The page itself allows no script.
FRAME: Final = """<body><iframe width="{width}" height="1000" style="border: 0" srcdoc="{page}"
onload="const shown = this.contentDocument; document.body.dataset.wide =
[shown.documentElement, ...shown.querySelectorAll('section')]
.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText.split('\\n')[0])
.concat('of ' + shown.documentElement.clientWidth).join(', ')"></iframe></body>"""


@pytest.mark.parametrize("width", [1100, 400])
def test_nothing_is_cut_off(served: Served, tmp_path: Path, width: int) -> None:
    """With closes of every kind, no part of the page is wider than its place."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("this host lacks a browser (package chromium)")
    crossed = partial(served.total, "fourwave_closes_total", kind="simultaneous")
    assert make_every_kind_until(crossed), served.said()
    page = tmp_path / "page.html"
    # As many digits as fit on a phone; a section with more of them scrolls.
    text = re.sub(r"\b\d+(,\d{3})+\b", "987,654", served.get("/")[0].decode())
    page.write_text(FRAME.format(width=width, page=html.escape(text)))
    words = [*ALONE, f"--user-data-dir={tmp_path}/profile", "--window-size=1200,1100"]
    shown = subprocess.run(
        [browser, *words, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    found = re.search(r'data-wide="(.*?)"', shown)
    assert found is not None, shown
    assert found[1] == f"of {width}"
