# SPDX-License-Identifier: Apache-2.0
"""Rules ask for what is declared; every alert fires, keeps still, and has a runbook."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from dashboards import make
from dashboards.promql import RECORDED, check
from tests.promtool import promtool
from tracer.cli import cli

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted((ROOT / "dashboards" / "rules").glob("*.yml"))
SCENARIOS: Final = sorted((ROOT / "tests" / "rules").glob("*.yml"))
RUNBOOKS: Final = (ROOT / "docs" / "runbooks.md").read_text()


def rules() -> list[dict[str, Any]]:
    """Return all rules of all files."""
    groups = [group for path in FILES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


RULES: Final = [
    pytest.param(rule, id=str(rule.get("alert") or rule.get("record"))) for rule in rules()
]
ALERTS: Final = [pytest.param(rule, id=rule["alert"]) for rule in rules() if "alert" in rule]


def test_promtool_accepts_them() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_they_do_what_the_scenarios_say(path: Path) -> None:
    promtool("test", "rules", str(path))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_asks_for_what_is_declared(rule: dict[str, Any]) -> None:
    words = " ".join(rule.get("annotations", {}).values())
    legend = re.sub(r"{{\s*\$labels\.(\w+)[^}]*}}", r"{{\1}}", words)
    check(rule["expr"], make.recorded(), re.sub(r"{{\s*\$value[^}]*}}", "", legend))


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    said = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert {"summary", "description", "runbook_url"} <= said.keys()
    assert said["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_every_alert_has_its_runbook_and_the_other_way_round() -> None:
    assert re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE) == [
        rule["alert"] for rule in rules() if "alert" in rule
    ]


def test_links_within_the_runbooks_lead_somewhere() -> None:
    sections = {name.lower() for name in re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE)}
    assert set(re.findall(r"\(#(\w+)\)", RUNBOOKS)) <= sections


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_fires_in_one_scenario_and_not_in_another(rule: dict[str, Any]) -> None:
    tests = [test for path in SCENARIOS for test in yaml.safe_load(path.read_text())["tests"]]
    about = f'alertname="{rule["alert"]}"'
    seen = {
        bool(case["exp_samples"])
        for test in tests
        for case in test["promql_expr_test"]
        if about in case["expr"]
    }
    assert seen == {True, False}


def test_what_is_recorded_is_used() -> None:
    text = "".join(path.read_text() for path in (ROOT / "dashboards" / "grafana").glob("*.json"))
    text += "".join(str(rule["expr"]) for rule in rules())
    assert {name for name in make.recorded() if name not in text} == set()


@pytest.mark.parametrize("name", make.recorded())
def test_a_recorded_name_says_its_level(name: str) -> None:
    match = RECORDED.fullmatch(name)
    assert match
    assert match["level"].split("_")[0] in {"instance", "job"}


# What operators are told to type, wrapped lines and all.
TOLD: Final = {
    " ".join(told.split())
    for text in (
        RUNBOOKS,
        make.PAGE.read_text(),
        *(" ".join(rule["annotations"].values()) for rule in rules() if "alert" in rule),
    )
    for told in re.findall(r"`fourwave\s+([^`]+)`", text)
}


@pytest.mark.parametrize("told", sorted(TOLD))
def test_what_operators_are_told_to_type_is_there(told: str) -> None:
    """Commands, options, and values that are one of a few."""
    words = told.split()
    command = cli.commands[words[0]]
    options = {name: param for param in command.params for name in param.opts}
    for option, value in pairwise([*words[1:], ""]):
        if option.startswith("-"):
            assert option in options
            few = getattr(options[option].type, "choices", ())
            assert not few or value in few
