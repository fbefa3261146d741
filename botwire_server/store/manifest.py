"""What a tenant's archive says of itself.

An archive may come from anybody: nothing in it is believed before it was looked at here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from botwire_server import limits
from botwire_server.errors import Damaged, Invalid, Refusal
from botwire_server.store import names
from botwire_server.store.moments import is_count, is_moment
from botwire_server.store.registry import is_id

FORMAT = "botwire-server tenant"
VERSION = 1

Record = dict[str, Any]


def damaged(why: str) -> Damaged:
    """The refusal of an archive."""
    return Damaged(f"This is no whole archive of a tenant: {why}. Nothing of it was taken in.")


def check_manifest(manifest: Any, *, kinds: Collection[str]) -> Record:
    """The manifest, if it is one of this version whose every field is what it should be."""
    _require(
        isinstance(manifest, dict) and manifest.get("format") == FORMAT, "it is something else"
    )
    if manifest.get("version") != VERSION:
        raise Invalid("This archive was written by another botwire-server: update this one.")
    _require(
        isinstance(manifest.get("tenant"), str) and isinstance(manifest.get("tier"), str),
        "its manifest names no tenant",
    )
    namespaces = manifest.get("namespaces")
    _require(isinstance(namespaces, list), "its manifest lists no namespaces")
    for namespace in namespaces:
        _check_namespace(namespace, kinds)
    for field in ("name", "id"):
        _require_unique([namespace[field] for namespace in namespaces])
    _require_unique([member["path"] for each in namespaces for member in each["members"]])
    return dict(manifest)


def _check_namespace(namespace: Any, kinds: Collection[str]) -> None:
    _require(
        isinstance(namespace, dict)
        and isinstance(namespace.get("name"), str)
        and isinstance(namespace.get("id"), str)
        and is_id(namespace["id"])
        and is_moment(namespace.get("created_at"))
        and isinstance(namespace.get("members"), list),
        "its manifest describes a namespace wrongly",
    )
    try:
        names.check(namespace["name"], "namespace", longest=limits.NAMESPACE)
    except Refusal:
        raise damaged("it holds a namespace that cannot be") from None
    for member in namespace["members"]:
        _require(
            isinstance(member, dict)
            and isinstance(member.get("path"), str)
            and isinstance(member.get("sha256"), str)
            and is_count(member.get("records")),
            "its manifest describes a member wrongly",
        )
        _require(member.get("kind") in kinds, "it holds records of an unknown kind")


def _require_unique(values: list[str]) -> None:
    _require(len(values) == len(set(values)), "its manifest says something twice")


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise damaged(why)
