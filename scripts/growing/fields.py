"""The fields of every request, as `/openapi.json` tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """A field of an operation. `place` is path, query, header, body, or items of the body."""

    path: str
    method: str
    place: str
    name: str
    schema: Schema
    example: Mapping[str, Any] | None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.place} {self.name}"

    @property
    def kinds(self) -> frozenset[str]:
        """The JSON types it takes; all where the document does not say."""
        types = self.schema.get("type", ["string", "object", "array", "number"])
        return frozenset([types] if isinstance(types, str) else types)

    @property
    def limit(self) -> int | None:
        """Characters of a text or bytes of JSON, None where nobody says."""
        schema = self.schema
        if "enum" in schema or "const" in schema or self.kinds <= {"boolean", "null"}:
            return 0
        if "array" in self.kinds and "maxItems" in schema:
            # An item may be as long as the body has room.
            return int(schema["maxItems"]) * (16_384 if self.name == "items" else 64)
        bounds = [
            int(schema[name])
            for kind, name in (("string", "maxLength"), ("object", "x-max-bytes"))
            if kind in self.kinds and name in schema
        ]
        if "maximum" in schema:
            return 0
        wanted = len(self.kinds & {"string", "object"})
        if "type" not in schema:  # anything: its bytes are bounded
            wanted = 1
        return max(bounds) if bounds and len(bounds) >= wanted else None


def fields(document: Schema) -> Iterator[Field]:
    """Every field of every request."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            example = None if content is None else content["example"]
            for each in operation.get("parameters", []):
                yield Field(path, method, each["in"], each["name"], each["schema"], example)
            if content is None:
                continue
            for shape in content["schema"].get("anyOf", [content["schema"]]):
                for name, schema in shape["properties"].items():
                    yield Field(path, method, "body", name, schema, example)
                    if name == "items":
                        for inner, its in schema["items"]["properties"].items():
                            yield Field(path, method, "items", inner, its, example)
