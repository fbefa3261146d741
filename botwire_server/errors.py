"""Every refusal this project makes on purpose.

    Refusal
    ├── Invalid                what was sent can never be accepted as it is
    │   ├── InvalidJson            the body is no JSON
    │   └── WrongMediaType         the body does not say that it is JSON
    ├── Unauthorized           nobody we know
    │   └── WrongKey               who shows a key that does not work
    ├── Forbidden              somebody we know, who may not do this
    │   └── ForeignOrigin          a web page of somebody else is asking
    ├── Misdirected            the Host header names another server
    ├── NotFound               there is no such thing, or it is another tenant's
    ├── MethodNotAllowed       the thing exists and does not do that
    ├── Conflict               a compare-and-set lost
    ├── TooLarge               the body is over its limit
    ├── TooExpensive           a read used up the time that it may compute
    ├── AnswerTooLarge         what was asked for is more than one answer holds
    ├── QuotaExceeded          a limit of the tenant is used up
    │   └── TooManyFailures        too many keys that do not work, from one address
    ├── Unavailable            it may work later
    │   ├── Busy                   others kept a read waiting for too long
    │   ├── Stopping               the server ends
    │   ├── StorageFull            there is no room left on the disk
    │   ├── Damaged                a file is not what it should be; others go on
    │   └── Closed                 the file was closed under the caller (never leaves `store`)
    └── Internal               a fault of ours, told in a fixed sentence

The core raises these and knows no status codes: each dialect has one table from class to
status. A message is a whole sentence for the person who reads it, names the field, and says
what to do. It never holds a key, a value or a path of this machine.
"""

from __future__ import annotations


class Refusal(Exception):
    """A deliberate no. `message` goes to the caller as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(Refusal):
    """What was sent can never be accepted as it is.

    `where` says which part: ("body", "value"), ("query", "limit"), ("path", "key").
    """

    def __init__(self, message: str, *, where: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.where = where


class InvalidJson(Invalid):
    """The body is no JSON."""


class WrongMediaType(Invalid):
    """The body does not say that it is JSON."""


class Unauthorized(Refusal):
    """Nobody we know."""


class WrongKey(Unauthorized):
    """Who shows a key that does not work: unknown, expired, revoked, or no key at all."""


class Forbidden(Refusal):
    """Somebody we know, who may not do this."""


class ForeignOrigin(Forbidden):
    """A web page of somebody else is asking."""


class Misdirected(Refusal):
    """The Host header names another server."""


class NotFound(Refusal):
    """There is no such thing, or it is another tenant's: the two read the same."""


class MethodNotAllowed(Refusal):
    """The thing exists and does not do that. `allowed` are the methods it does."""

    def __init__(self, message: str, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class Conflict(Refusal):
    """A compare-and-set lost."""


class TooLarge(Refusal):
    """The body is over its limit."""


class TooExpensive(Refusal):
    """A read used up the `seconds` that it may compute. `field` is what asked for so much."""

    def __init__(self, seconds: float, field: str = "") -> None:
        asked = f"This {field}" if field else "This"
        super().__init__(
            f"{asked} asks for more than a read may compute in {seconds:g} s; ask for less at once."
        )
        self.seconds = seconds
        self.field = field


class AnswerTooLarge(Refusal):
    """What was asked for is more than one answer holds."""


class QuotaExceeded(Refusal):
    """A limit of the tenant is used up.

    `resets_at` is when it opens again in Unix seconds, None where only deleting helps; `kind`
    names the limit for who counts refusals.
    """

    def __init__(
        self, message: str, *, limit: int, resets_at: float | None, kind: str = "other"
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.resets_at = resets_at
        self.kind = kind


class TooManyFailures(QuotaExceeded):
    """Too many requests with keys that do not work came from one address."""


class Unavailable(Refusal):
    """It may work later."""


class Busy(Unavailable):
    """Others kept a read waiting for too long."""


class Stopping(Unavailable):
    """The server ends."""


class StorageFull(Unavailable):
    """There is no room left on the disk, or in what the system lets this user take of it."""


class Damaged(Unavailable):
    """A file is not what it should be. It is left as it is, and every other file goes on."""


class Closed(Unavailable):
    """The file was closed under the caller, who looks the namespace up again."""


class Internal(Refusal):
    """A fault of ours; its cause is in the log under the request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"Something went wrong in the server. Its log says what, under request id {request_id}."
        )


class Unusable(Exception):
    """The server or a command cannot start. `message` says in a sentence what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
