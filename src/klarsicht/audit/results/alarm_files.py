"""Alarms as the files that pipelines read: JUnit XML, and SARIF 2.1.0 (OASIS 2020)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree

from klarsicht import __version__
from klarsicht.audit.results.alarms import CAUSES, Alarm

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
SHOWN_IMAGES = 20  # of an alarm


def to_junit(alarms: Sequence[Alarm], causes: Sequence[str]) -> str:
    """Write a test suite for each cause: a failure for each alarm, a skipped test for each that a person accepted, and
    one passed test where there is none."""
    root = ElementTree.Element("testsuites", name="klarsicht")
    for cause in causes:
        own = [alarm for alarm in alarms if alarm.cause == cause]
        failures = sum(not alarm.accepted_by for alarm in own)
        counts = {"tests": max(1, len(own)), "failures": failures, "skipped": len(own) - failures, "errors": 0}
        suite = ElementTree.SubElement(root, "testsuite", {"name": cause} | {key: str(n) for key, n in counts.items()})
        for alarm in own:
            case = ElementTree.SubElement(suite, "testcase", classname=f"klarsicht.{cause}", name=alarm.subject)
            kind = "skipped" if alarm.accepted_by else "failure"
            accepted = f" Accepted by {alarm.accepted_by}." if alarm.accepted_by else ""
            told = ElementTree.SubElement(case, kind, message=_printable(alarm.message + accepted))
            told.text = _printable("\n".join(alarm.images[:SHOWN_IMAGES]))
        if not own:
            ElementTree.SubElement(suite, "testcase", classname=f"klarsicht.{cause}", name=CAUSES[cause].text)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Replace what XML cannot hold."""
    return "".join(c if c in "\t\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def to_sarif(alarms: Sequence[Alarm], causes: Sequence[str]) -> str:
    """Write a rule for each cause and a result for each alarm; one that a person accepted is suppressed."""
    rules = [{"id": cause, "shortDescription": {"text": CAUSES[cause].text}} for cause in causes]
    results = [
        {
            "ruleId": alarm.cause,
            "level": "error",
            "message": {"text": alarm.message},
            "locations": [
                {"physicalLocation": {"artifactLocation": {"uri": quote(image)}}}
                for image in alarm.images[:SHOWN_IMAGES]
            ],
            "suppressions": [{"kind": "external", "justification": alarm.accepted_by}] if alarm.accepted_by else [],
        }
        for alarm in alarms
    ]
    driver = {"name": "klarsicht", "version": __version__, "rules": rules}
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=1) + "\n"
