"""Fields: what a part of a request may be, said once.

The same object reads the part (`of`) and describes it (`schema`), so that what is checked and what
`/openapi.json` tells cannot drift apart. What only one dialect knows stands with that dialect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any, Generic, Literal, TypeVar

import orjson

from botwire_server import limits
from botwire_server.errors import Invalid

T = TypeVar("T", covariant=True)
Place = Literal["body", "query", "path", "header"]
Schema = dict[str, Any]
Values = Mapping[str, Any]

# Free JSON; what takes it says how much of it.
JSON: Schema = {
    "description": f"Any JSON: nested at most {limits.DEPTH} deep, whole numbers within 64 bits.",
    "x-max-depth": limits.DEPTH,
}
NO_CONTROLS = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
DURATION = "^[0-9]{1,6}[smhd]$"


class Field(Generic[T]):
    """A part of a request, known by its name: in a body, a query, a path, or a header.

    `schema` is JSON Schema for what it takes; a body's field that is not `required` may be null,
    which is the same as missing. `default` is what then holds, for people.
    """

    def __init__(
        self,
        name: str,
        help: str,
        schema: Schema,
        *,
        place: Place = "body",
        required: bool = False,
        default: Any = None,
    ) -> None:
        self.name = name
        self.help = help
        self.place = place
        self.required = required
        self.schema = schema if default is None else {**schema, "default": default}

    def of(self, values: Values) -> T:
        """The field out of the values of its place. Raises `Invalid` naming it."""
        value: T = values.get(self.name)  # type: ignore[assignment]
        return value

    def refusal(self, message: str) -> Invalid:
        """A refusal for this field."""
        return Invalid(message, where=(self.place, self.name))

    def refuse_longer(self, text: str, longest: int) -> None:
        """Raise `Invalid` for more characters than the field may have."""
        if len(text) > longest:
            raise self.refusal(
                f"{self.name} may have {longest} characters; this one has {len(text)}."
            )

    def refuse_larger(self, encoded: bytes, largest: int) -> None:
        """Raise `Invalid` for JSON of more bytes than the field may have."""
        if len(encoded) > largest:
            raise self.refusal(
                f"{self.name} may have {largest} bytes as JSON; this one has {len(encoded)}."
            )


class Text(Field[str | None]):
    """A string of at most `longest` characters, or None where it is missing.

    What else `schema` says of it is looked at elsewhere.
    """

    def __init__(self, name: str, help: str, *, longest: int, **more: Any) -> None:
        schema = {"type": "string", "maxLength": longest, **more.pop("schema", {})}
        super().__init__(name, help, schema, **more)
        self._longest = longest

    def of(self, values: Values) -> str | None:
        """See `Field`."""
        value = values.get(self.name)
        if value is not None and not isinstance(value, str):
            raise self.refusal(f"{self.name} must be a string.")
        if value is not None:
            self.refuse_longer(value, self._longest)
        return value


class Name(Field[str]):
    """A name in the path: 1 to `longest` characters."""

    def __init__(self, name: str, help: str, *, longest: int) -> None:
        schema = {"type": "string", "minLength": 1, "maxLength": longest}
        super().__init__(name, help, schema, place="path", required=True)
        self._longest = longest

    def of(self, values: Values) -> str:
        """See `Field`."""
        value: str = values[self.name]
        self.refuse_longer(value, self._longest)
        return value


class Object(Field[dict[str, Any]]):
    """A JSON object of at most `largest` bytes; an empty one where it is missing and not required.

    Without `check` whoever encodes it looks at its size.
    """

    def __init__(
        self, name: str, help: str, *, largest: int, check: bool = True, **more: Any
    ) -> None:
        schema = {
            "type": "object",
            "x-max-bytes": largest,
            "x-max-depth": limits.DEPTH,
            **more.pop("schema", {}),
        }
        super().__init__(name, help, schema, **more)
        self._largest = largest if check else None

    def of(self, values: Values) -> dict[str, Any]:
        """See `Field`."""
        value = values.get(self.name)
        if value is None and not self.required:
            return {}
        if not isinstance(value, dict):
            raise self.refusal(f"{self.name} must be a JSON object.")
        if value and self._largest is not None:
            self.refuse_larger(orjson.dumps(value), self._largest)
        return value


class Number(Field[float | None]):
    """A number from `least` (or `above` it) to `most`, or None where it is missing."""

    def __init__(
        self, name: str, help: str, *, least: float, most: float, above: bool = False, **more: Any
    ) -> None:
        bound = "exclusiveMinimum" if above else "minimum"
        super().__init__(name, help, {"type": "number", bound: least, "maximum": most}, **more)
        self._least = least
        self._most = most
        self._above = above

    def of(self, values: Values) -> float | None:
        """See `Field`."""
        value = values.get(self.name)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not self._least <= value <= self._most
        ):
            raise self.refusal(
                f"{self.name} must be a number from {self._least:g} to {self._most:g}."
            )
        if self._above and value <= self._least:
            raise self.refusal(f"{self.name} must be more than {self._least:g}.")
        return value


class Whole(Field[int | None]):
    """A whole number from `least` to `most`, or None where it is missing."""

    def __init__(self, name: str, help: str, *, least: int, most: int, **more: Any) -> None:
        schema = {"type": "integer", "minimum": least, "maximum": most}
        super().__init__(name, help, schema, **more)
        self._bounds = least, most

    def of(self, values: Values) -> int | None:
        """See `Field`."""
        value = values.get(self.name)
        if value is None:
            return None
        least, most = self._bounds
        if self.place == "query":
            value = int(value) if re.fullmatch("[0-9]{1,9}", value) else None
        elif isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one kind of number
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.refusal(f"{self.name} must be a whole number from {least} to {most}.")
        return value


class Flag(Field[bool]):
    """True or false; false where it is missing."""

    def __init__(self, name: str, help: str, **more: Any) -> None:
        super().__init__(name, help, {"type": "boolean"}, default=False, **more)

    def of(self, values: Values) -> bool:
        """See `Field`."""
        value = values.get(self.name)
        if value is not None and not isinstance(value, bool):
            raise self.refusal(f"{self.name} must be true or false.")
        return bool(value)


class Choice(Field[str | None]):
    """One of some words, or None where it is missing and not required."""

    def __init__(self, name: str, help: str, words: Sequence[str], **more: Any) -> None:
        self._said = more.pop("said", f"{name} must be one of {', '.join(words)}.")
        super().__init__(name, help, {"type": "string", "enum": [*words]}, **more)
        self._words = words

    def of(self, values: Values) -> str | None:
        """See `Field`."""
        value = values.get(self.name)
        if value is None and not self.required:
            return None
        if value not in self._words:
            raise self.refusal(self._said)
        return str(value)


class Moment(Field[float | None]):
    """An ISO 8601 time as Unix seconds, or None where it is missing; UTC where it has no offset.

    A date alone is its first moment, or its last with `end`.
    """

    def __init__(self, name: str, help: str, *, end: bool = False, **more: Any) -> None:
        schema = {
            "type": "string",
            "maxLength": limits.TIME,
            "anyOf": [{"format": "date-time"}, {"format": "date"}],
        }
        super().__init__(name, help, schema, **more)
        self._end = end

    def of(self, values: Values) -> float | None:
        """See `Field`."""
        given = values.get(self.name)
        if given is None:
            return None
        try:
            if not isinstance(given, str) or len(given) > limits.TIME:
                raise ValueError
            if re.fullmatch(r"\d{4}-\d\d-\d\d", given):
                hour = time.max if self._end else time.min
                at = datetime.combine(datetime.fromisoformat(given), hour)
            else:
                # A `+` that was not quoted arrives as a space.
                at = datetime.fromisoformat(given[:11] + given[11:].replace(" ", "+"))
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise self.refusal(
                f"{self.name} must be an ISO 8601 time, such as 2026-11-20T10:46:51+00:00."
            ) from None


class Cursor(Field[int | None]):
    """Where a listing goes on, as an earlier answer gave it; None where it is missing."""

    def __init__(self, letter: str) -> None:
        schema = {
            "type": "string",
            "maxLength": limits.CURSOR,
            "pattern": f"^{letter}[0-9]{{1,18}}$",
        }
        super().__init__("cursor", "Where an earlier answer ended.", schema, place="query")
        self._shape = re.compile(letter + "[0-9]{1,18}")

    def of(self, values: Values) -> int | None:
        """See `Field`."""
        cursor = values.get("cursor")
        if cursor is None:
            return None
        if not self._shape.fullmatch(cursor):
            raise self.refusal("cursor must be one that an earlier answer gave.")
        return int(cursor[1:])
