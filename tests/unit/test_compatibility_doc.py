# SPDX-License-Identifier: Apache-2.0
"""The page of promises forgets nothing that others come to rely on."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest

from tracer import cli
from tracer.close import Close, DelayedAck
from tracer.recording import FORMAT_VERSION
from tracer.wire import WIRE_VERSION

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "compatibility.md").read_text()
SOURCES: Final = "".join(path.read_text() for path in (ROOT / "tracer").rglob("*.py"))


def test_every_key_of_a_close_is_there() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE))
    assert {field.name for field in fields(Close)} <= told
    (row,) = re.findall(r"`delayed_ack` \| `{(.*)}`", PAGE)
    assert row.split(", ") == [field.name for field in fields(DelayedAck)]


def test_every_option_of_serve_is_there() -> None:
    options = {name for option in cli.cli.commands["serve"].params for name in option.opts}
    assert {name for name in options if name not in PAGE} == set()


def test_every_variable_is_there() -> None:
    read = set(re.findall(r'"(FOURWAVE_\w+)"', SOURCES)) - set(re.findall(r"\w+_H\b", SOURCES))
    assert read
    assert {name for name in read if f"| `{name}` |" not in PAGE} == set()


def test_the_versions_are_those_written() -> None:
    assert f"format {FORMAT_VERSION}, records of version {WIRE_VERSION}\n" in PAGE


@pytest.mark.parametrize("page", ["leaks", "ports", "listeners", "top"])
def test_types_are_those_of_their_pages(page: str) -> None:
    section = (ROOT / "docs" / f"{page}.md").read_text().split("\n## JSON\n")[1]
    kinds = re.findall(r"(?:^|\n)\n`(\w+)`", section)
    assert kinds
    assert {name for name in kinds if f"`{name}`" not in PAGE} == set()


def test_links_lead_to_a_section() -> None:
    for page, anchor in re.findall(r"\]\((\w+\.md)#([\w-]+)\)", PAGE):
        text = (ROOT / "docs" / page).read_text()
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {title.lower().replace(" ", "-") for title in titles}, (page, anchor)
