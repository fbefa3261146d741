"""Shapes of what the store reports to more than one dialect."""

from __future__ import annotations

from botwire_server.store.namespace import Totals
from botwire_server.web.description import STRING, WHOLE, Shape, listed
from botwire_server.web.fields import Schema

TOTALS: dict[str, Schema] = dict.fromkeys(Totals._fields, WHOLE)
CALLS: dict[str, Schema] = {
    "api_calls_today": WHOLE,
    "api_calls_month": WHOLE,
    "embeddings_generated_month": WHOLE,
}
DAY = Shape(
    "UsageOfDay",
    {
        "day": {"type": "string", "format": "date"},
        "api_calls": WHOLE,
        "namespaces": WHOLE,
        "vectors_stored": WHOLE,
        "storage_bytes": WHOLE,
    },
)
KEY = Shape("UsageOfKey", {"id": STRING, "label": STRING, **CALLS})
USAGE: dict[str, Schema] = {
    **CALLS,
    "namespaces": WHOLE,
    "vectors_stored": WHOLE,
    "storage_bytes": WHOLE,
    "billing_period": {"type": "string", "description": "YYYY-MM, UTC."},
    "keys": listed(KEY),
    "days": listed(DAY),
}
