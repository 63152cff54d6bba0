# SPDX-License-Identifier: Apache-2.0
"""The landing page from samples made by hand."""

from __future__ import annotations

from tracer.samples import Samples
from tracer.web.page import as_html


def test_it_says_what_confines_who_serves_it() -> None:
    """And why something does not."""
    shown = as_html(Samples(0.0), {"seccomp": None, "Landlock": "the kernel has <none>"}).decode()
    assert "by seccomp" in shown
    assert "not by Landlock: the kernel has &lt;none&gt;" in shown


def test_without_samples_it_says_so() -> None:
    assert "does not answer" in as_html(None, {}).decode()
