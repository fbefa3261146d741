"""What the operator API takes and answers. What the fields may be is checked by `Operator`."""

from __future__ import annotations

from typing import Any

from botwire_server import limits
from botwire_server.store import keys
from botwire_server.web.description import (
    BOOLEAN,
    STRING,
    TIME,
    WHOLE,
    Answer,
    Body,
    Query,
    Shape,
    listed,
    or_null,
)
from botwire_server.web.fields import DURATION, NO_CONTROLS, Field, Name, Schema, Text, Values
from botwire_server.web.shapes import TOTALS, USAGE

_NAME: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": limits.TENANT,
    "pattern": NO_CONTROLS.replace("]", "/]"),
}
_PART = "[^\\u0000-\\u001f\\u007f-\\u009f*]*"


class Scopes(Field[list[str]]):
    """What a key may do; everything where it is missing."""

    def __init__(self) -> None:
        schema = {
            "type": "array",
            "maxItems": limits.SCOPES,
            "items": {"type": "string", "enum": [*keys.SCOPES]},
        }
        super().__init__("scopes", "What the key may do; without it, everything.", schema)

    def of(self, values: Values) -> list[str]:
        """See `Field`."""
        scopes = values.get("scopes")
        if scopes is None:
            return []
        if (
            not isinstance(scopes, list)
            or len(scopes) > limits.SCOPES
            or not all(scope in keys.SCOPES for scope in scopes)
        ):
            raise self.refusal(f"scopes must be a list of {', '.join(keys.SCOPES)}.")
        return scopes


# One that is too long is no tenant's.
TENANT = Field[str]("tenant", "The tenant's name.", _NAME, place="path")
KEY_ID = Name("id", "The key's public id.", longest=limits.PUBLIC_ID)

NAME = Text("name", "Its name.", longest=limits.TENANT, schema=_NAME, required=True)
TIER = Text(
    "tier",
    "A tier that the server knows, such as free; without it, unlimited.",
    longest=limits.WORD,
)
NEW_TIER = Text(
    "tier", "A tier that the server knows, such as free.", longest=limits.WORD, required=True
)
LABEL = Text("label", "For people.", longest=limits.LABEL, schema={"pattern": NO_CONTROLS})
SCOPES = Scopes()
PATTERN = Text(
    "namespace",
    "The namespaces it reaches; * stands for anything, four times at most.",
    longest=limits.PATTERN,
    schema={"pattern": f"^{_PART}(\\*{_PART}){{0,{limits.STARS}}}$"},
)
EXPIRES = Text(
    "expires",
    "How long it works, such as 90d; without it, for good.",
    longest=limits.DURATION,
    schema={"pattern": DURATION},
)
GRACE = Text(
    "grace",
    "How long the old key still works, such as 24h.",
    longest=limits.DURATION,
    schema={"pattern": DURATION},
)
NEW_TENANT = Body(NAME, TIER, example={"name": "acme", "tier": "free"})
CHANGE = Body(NEW_TIER, example={"tier": "pro"})
NEW_KEY = Body(LABEL, SCOPES, PATTERN, EXPIRES, example={"label": "web", "scopes": ["read"]})
ROTATION = Body(GRACE, example={"grace": "24h"})

CONFIRM = Text(
    "confirm",
    "The tenant's name once more.",
    longest=limits.TENANT,
    place="query",
    required=True,
)
PURGE_TENANT = Query(CONFIRM, strict=True)
PREFIX = Text("prefix", "Only those whose name begins so.", longest=limits.NAMESPACE, place="query")
ONE = Text("name", "The namespace to remove.", longest=limits.NAMESPACE, place="query")
MANY = Text(
    "prefix",
    "Remove all whose name begins so.",
    longest=limits.NAMESPACE,
    place="query",
    schema={"minLength": 1},
)
LISTED = Query(PREFIX)
PURGE = Query(ONE, MANY, strict=True)
OF_TENANT = Text("tenant", "Only of this tenant.", longest=limits.TENANT, place="query")
AUDITED = Query(OF_TENANT)

KEY = Shape(
    "Key",
    {
        "id": STRING,
        "tenant": or_null(STRING),
        "operator": BOOLEAN,
        "label": STRING,
        "scopes": listed({"type": "string", "enum": [*keys.SCOPES]}),
        "namespace": STRING,
        "created_at": TIME,
        "last_used_at": or_null(TIME),
        "expires_at": or_null(TIME),
        "revoked_at": or_null(TIME),
    },
)
_SECRET: Schema = {"type": "string", "description": "The key itself, shown this once."}
MADE_KEY = KEY.extended("NewKey", key=_SECRET)
ROTATED_KEY = MADE_KEY.extended("RotatedKey", replaces=STRING)
HELD = Shape(
    "Tenant",
    {
        "tenant": STRING,
        "id": STRING,
        "tier": STRING,
        "created_at": TIME,
        "namespaces": WHOLE,
        **TOTALS,
    },
)
SHOWN = HELD.extended("TenantWithKeys", keys=listed(KEY))
NAMESPACE = Shape("Namespace", {"namespace": STRING, "id": STRING, "created_at": TIME, **TOTALS})
RECEIPT = Shape(
    "Receipt",
    {
        "tenant": STRING,
        "purge_id": STRING,
        "scope": {"type": "string", "enum": ["namespace", "prefix", "tenant"]},
        "tenant_id": STRING,
        "namespaces": WHOLE,
        **TOTALS,
        "started_at": TIME,
        "finished_at": TIME,
        "actor": STRING,
    },
)
TENANT_USAGE = Shape("TenantUsage", {"tenant": STRING, **USAGE})
AUDIT = Shape(
    "AuditLine",
    {
        "at": TIME,
        "actor": STRING,
        "action": STRING,
        "tenant": or_null(STRING),
        "tenant_id": or_null(STRING),
        "subject": STRING,
        "outcome": STRING,
    },
)
REFUSAL = Shape(
    "AdminRefusal",
    {"error": Shape("AdminError", {"code": STRING, "message": STRING}), "request_id": STRING},
)


def list_of(name: str, shape: Shape) -> Answer:
    """An answer with one list in it."""
    properties: dict[str, Any] = {name: listed(shape)}
    return Answer("All of them.", Shape(f"{shape.name}List", properties))
