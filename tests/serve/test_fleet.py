# SPDX-License-Identifier: Apache-2.0
"""The recipes of docs/dashboards.md for many hosts: what a site records, a centre sums."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from dashboards import make
from tests.serve.conftest import RULES, Prometheus
from tests.serve.served import make_every_kind, until
from tests.serve.trouble import trouble

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serve.served import Served

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

BLOCKS: Final[list[dict[str, Any]]] = [
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", make.PAGE.read_text(), re.DOTALL)
]
SUMS: Final = {name for name in make.recorded() if name.startswith("job")}


def recipe(word: str) -> dict[str, Any]:
    """Return the first block of the page that configures this."""
    return copy.deepcopy(next(block for block in BLOCKS if word in str(block)))


def site(served: Served) -> dict[str, Any]:
    """Return how a site scrapes and records."""
    config = recipe("rule_files")
    job = config["scrape_configs"][0]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{served.port}"]}]
    del job["scrape_interval"]
    return {**config, "rule_files": [str(RULES / "recording.yml")]}


def folder(parent: Path, name: str) -> Path:
    """Return a new folder."""
    made = parent / name
    made.mkdir()
    return made


def check(near: Prometheus, centre: Prometheus, labels: dict[str, str]) -> None:
    """Assert that the centre gets all sums of a site, with these labels and no others."""
    assert until(lambda: near.query("up == 1"))
    with trouble():
        make_every_kind()
        all_come(centre)
    rows = centre.query("job:fourwave_hosts:count")
    assert [row["metric"] for row in rows] == [{"__name__": "job:fourwave_hosts:count", **labels}]
    assert until(lambda: centre.query('job_kind:fourwave_closes:rate5m{kind="abort"} > 0'))
    assert not centre.query('{__name__=~"fourwave_.*_total"}'), "only what is recorded is sent"


def all_come(centre: Prometheus) -> None:
    """Wait until every sum is there."""
    missing = set(SUMS)

    def have_come() -> bool:
        missing.difference_update([name for name in missing if centre.query(name)])
        return not missing

    assert until(have_come, 60), missing


def test_federation(served: Served, tmp_path: Path) -> None:
    config = {**recipe("federate"), "rule_files": [str(RULES / "fleet.yml")]}
    with Prometheus(folder(tmp_path, "site"), site(served)) as near:
        config["scrape_configs"][0]["static_configs"] = [{"targets": [near.address]}]
        with Prometheus(folder(tmp_path, "centre"), config) as centre:
            check(near, centre, {"job": "fourwave"})


def test_remote_write(served: Served, tmp_path: Path) -> None:
    receiver = "--web.enable-remote-write-receiver"
    rules = {"rule_files": [str(RULES / "fleet.yml")]}
    config = {**site(served), **recipe("remote_write")}
    with Prometheus(folder(tmp_path, "centre"), rules, receiver) as centre:
        config["remote_write"][0]["url"] = f"{centre.url}/api/v1/write"
        with Prometheus(folder(tmp_path, "site"), config) as near:
            check(near, centre, {"job": "fourwave", "cluster": "north"})
