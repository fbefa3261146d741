"""What this dialect takes: our wide rules, and those of the hosted service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from botwire_server import limits
from botwire_server.errors import Invalid
from botwire_server.store import names
from botwire_server.web.description import STRING, Answer, Body, Query, Shape, listed
from botwire_server.web.fields import (
    JSON,
    NO_CONTROLS,
    Cursor,
    Field,
    Number,
    Schema,
    Text,
    Values,
    Whole,
)

LONGEST_TTL = 100 * 365 * 86_400
LONGEST_PAGE = 10_000


class Name(Field[str]):
    """The name of a namespace or of an entry, in the path.

    Without `only` the store's own rules hold: 1 to `longest` characters, none of them a control;
    and without `slashes` none of these.
    """

    slashes = False

    def __init__(self, name: str, help: str, *, longest: int, only: str | None, said: str) -> None:
        schema = {"type": "string", "minLength": 1, "maxLength": longest}
        any = NO_CONTROLS if self.slashes else NO_CONTROLS.replace("]", "/]")
        schema["pattern"] = any if only is None else f"^{only}*$"
        super().__init__(name, help, schema, place="path", required=True)
        self._pattern = None if only is None else re.compile(f"{only}{{1,{longest}}}")
        self._said = said

    def of(self, values: Values) -> str:
        """See `Field`."""
        name: str = values[self.name]
        if self._pattern is not None and not self._pattern.fullmatch(name):
            raise self.refusal(self._said)
        return name


class Key(Name):
    """An entry's name. (That of a namespace is checked by whoever opens it.)"""

    slashes = True

    def of(self, values: Values) -> str:
        """See `Field`."""
        key = names.check(values["key"], "key", longest=limits.KEY)
        return key if self._pattern is None else super().of(values)


class Value(Field[Any]):
    """What is stored: any JSON, or a string of at most `longest` characters."""

    def __init__(self, *, longest: int | None) -> None:
        help = "What to store: nested at most 64 deep, whole numbers within 64 bits."
        most: Schema = {"maxLength": longest} if longest else {"x-max-bytes": limits.VALUE}
        schema = JSON | most if longest is None else {"type": "string", **most}
        super().__init__("value", help, schema, required=True)
        self._longest = longest

    def of(self, values: Values) -> Any:
        """See `Field`."""
        if "value" not in values:
            raise self.refusal('The body needs a "value".')
        value = values["value"]
        if self._longest is not None:
            if not isinstance(value, str):
                raise self.refusal("value must be a string (hosted profile).")
            if len(value) > self._longest:
                # 400 there, unlike other faults of the body.
                raise Invalid(f"The value has more than {self._longest} characters.")
        return value


class Lifetime(Number):
    """`ttl_seconds`."""

    def __init__(self) -> None:
        super().__init__(
            "ttl_seconds",
            "Seconds after which the entry is gone; without it, it stays.",
            least=0,
            most=LONGEST_TTL,
            above=True,
        )


class Tags(Text):
    """A header of ETags."""

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help, longest=limits.ETAGS, place="header")


IF_MATCH = Tags("If-Match", "Only if the entry still has this ETag; * for any.")
IF_NONE_MATCH = Tags("If-None-Match", "*: only if there is no such entry.")
IF_CHANGED = Tags("If-None-Match", "An ETag: 304 if the entry still has it.")
CONFIRM = Text(
    "confirm", "The namespace's name once more.", longest=limits.NAMESPACE, place="query"
)
PURGE = Query(CONFIRM, strict=True)
PREFIX = Text("prefix", "Only keys that begin so.", longest=limits.KEY, place="query")

_FAULTS = Shape(
    "BotwireFaults",
    {
        "detail": listed(
            {
                "type": "object",
                "properties": {"type": STRING, "loc": listed(STRING), "msg": STRING},
                "required": ["type", "loc", "msg"],
            }
        )
    },
)


@dataclass(frozen=True)
class Rules:
    """The fields of one profile. `page` is how many keys a listing shows, None for all."""

    hosted: bool
    namespace: Name
    key: Name
    value: Value
    ttl: Lifetime | None
    limit: Whole
    cursor: Cursor | None
    page: int | None
    conditions: tuple[Field[Any], ...] = ()
    wrong: Mapping[int, Answer] = field(default_factory=dict)

    @cached_property
    def entry(self) -> Body:
        """What a PUT brings."""
        fields = (self.value,) if self.ttl is None else (self.value, self.ttl)
        return Body(*fields, example={"value": "Ada"})

    @cached_property
    def listing(self) -> Query:
        """What a listing can be asked for."""
        return Query(self.limit) if self.hosted else Query(PREFIX, self.limit, Cursor("r"))


_NAMESPACE = "The namespace: one agent, one user, one session."
_KEY = "The entry's name; a slash in it may stand as it is."

NATIVE = Rules(
    hosted=False,
    namespace=Name("namespace", _NAMESPACE, longest=limits.NAMESPACE, only=None, said=""),
    key=Key("key", _KEY, longest=limits.KEY, only=None, said=""),
    value=Value(longest=None),
    ttl=Lifetime(),
    limit=Whole("limit", "Keys at most.", least=1, most=LONGEST_PAGE, place="query"),
    cursor=Cursor("r"),
    page=None,
    conditions=(IF_MATCH, IF_NONE_MATCH),
)

HOSTED = Rules(
    hosted=True,
    namespace=Name(
        "namespace",
        _NAMESPACE,
        longest=64,
        only="[A-Za-z0-9_-]",
        said="The namespace may have 1 to 64 letters, digits, and _ - only (hosted profile).",
    ),
    key=Key(
        "key",
        _KEY,
        longest=128,
        only="[A-Za-z0-9_.-]",
        said="The key may have 1 to 128 letters, digits, and . _ - only (hosted profile).",
    ),
    value=Value(longest=100_000),
    ttl=None,
    limit=Whole("limit", "Keys at most.", least=1, most=1_000, place="query", default=100),
    cursor=None,
    page=100,
    wrong={422: Answer("The body or the query is wrong, and where.", _FAULTS)},
)
