"""What the project asks for leaves out the versions that are known to have holes."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
ASKED = [
    Requirement(line)
    for line in (
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["s3"],
        *PROJECT["project"]["optional-dependencies"]["test"],
        *PROJECT["build-system"]["requires"],
    )
]

# The last version with a known hole, and what is known of it.
HOLES = {
    "orjson": ("3.11.5", "CVE-2025-67221: deep nesting overflows the stack"),
    "click": ("8.3.2", "CVE-2026-7246: edit() runs what a file's name says"),
    "starlette": ("1.3.0", "CVE-2026-48710, -54282, -54283: Host, and forms without limits"),
    "httptools": ("0.6.2", "CVE-2024-27982: request smuggling in llhttp"),
    "h11": ("0.15.0", "CVE-2025-43859: request smuggling by chunks"),
    "idna": ("3.14", "quadratic time for crafted names"),
    "requests": ("2.32.5", "CVE-2026-25645: predictable temporary files"),
    "urllib3": ("2.6.3", "CVE-2026-44431, -44432: headers sent elsewhere, decompression bombs"),
    "certifi": ("2024.6.2", "CVE-2024-39689: roots that are not trusted any more"),
    "setuptools": ("78.1.0", "CVE-2025-47273: a package's name becomes a path"),
    "pytest": ("9.0.2", "CVE-2025-71176: predictable temporary directories"),
}


@pytest.mark.parametrize("name", HOLES)
def test_a_version_with_a_known_hole_is_left_out(name):
    holed, why = HOLES[name]
    specifiers = [each.specifier for each in ASKED if each.name == name]
    assert specifiers and not any(each.contains(holed) for each in specifiers), why


@pytest.mark.parametrize("name", [name for name in HOLES if name != "setuptools"])
def test_what_is_installed_has_none(name):
    assert Version(importlib.metadata.version(name)) > Version(HOLES[name][0])
