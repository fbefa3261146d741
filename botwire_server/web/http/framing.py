"""Where the body of a request ends: after so many bytes, or with its last chunk.

What stands around the chunks is bounded and dropped: their extensions, and the trailer, whose
fields never become headers.
"""

from __future__ import annotations

import re

from botwire_server.errors import Invalid
from botwire_server.web.http.head import LARGEST_HEAD, Rejected, too_large

# A line with the size of a chunk and its extensions, or a field of the trailer.
LONGEST_LINE = 4_096
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")


class Sized:
    """A body of so many bytes, of which `left` are still to come."""

    __slots__ = ("ended", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.ended = False

    def feed(self, data: bytes, at: int) -> tuple[bytes, int]:
        """What of the body stands in `data` from `at` on, and where it stops."""
        part = data[at : at + self.left]
        self.left -= len(part)
        self.ended = not self.left
        return part, at + len(part)


class Chunked:
    """A body in chunks; `left` are the bytes still to come of the one that arrives.

    What stands around the chunks may take as much as the chunks hold and as much as a head: a
    body in ever so small pieces goes through, and none is a way to keep us busy for nothing.
    """

    __slots__ = ("_around", "_expect", "_held", "_line", "_trailer", "ended", "left")

    def __init__(self) -> None:
        self._line = b""  # the beginning of a line whose end did not come
        self.left = 0
        self._expect = b""  # what must come before anything else
        self._held = 0  # bytes of the body so far
        self._around = 0  # bytes that are not
        self._trailer = -1  # bytes of the trailer, once the last chunk came
        self.ended = False

    def feed(self, data: bytes, at: int) -> tuple[bytes, int]:
        """What of the body stands in `data` from `at` on, and where it stops. Raises `Rejected`."""
        parts: list[bytes] = []
        while at < len(data) and not self.ended:
            if self.left:
                part = data[at : at + self.left]
                parts.append(part)
                at += len(part)
                self.left -= len(part)
                self._held += len(part)
                if not self.left:
                    self._expect = b"\r\n"
            elif self._expect:
                count = min(len(self._expect), len(data) - at)
                if data[at : at + count] != self._expect[:count]:
                    raise _invalid("a chunk is longer than it says")
                self._expect = self._expect[count:]
                at += count
            else:
                at = self._take_line(data, at)
        return b"".join(parts), at

    def _take_line(self, data: bytes, at: int) -> int:
        """Take a line as far as it came; where it stops."""
        if self._line.endswith(b"\r") and data.startswith(b"\n", at):
            line, stop = self._line[:-1], at + 1
        else:
            end = data.find(b"\r\n", at, at + LONGEST_LINE + 2)
            if end < 0:
                self._line += data[at : at + LONGEST_LINE + 2]
                self._check_line(self._line, whole=False)
                return len(data)
            line, stop = self._line + data[at:end], end + 2
        self._line = b""
        self._check_line(line, whole=True)
        if self._trailer < 0:
            self._size(line)
        elif line:
            self._trailer_field(line)
        else:
            self.ended = True
        return stop

    def _check_line(self, line: bytes, *, whole: bool) -> None:
        if len(line) > LONGEST_LINE:
            raise _invalid("a line around the chunks is too long")
        if b"\n" in line or b"\r" in (line if whole else line[:-1]):
            raise _invalid("a line ends in something else than CR LF")

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise _invalid("a chunk does not say how long it is")
        self._around += len(line) + 4
        if self._around > self._held + LARGEST_HEAD:
            raise _invalid("the chunks hold less than what stands around them; send larger ones")
        self.left = int(found[1], 16)
        if not self.left:
            self._trailer = 0

    def _trailer_field(self, line: bytes) -> None:
        if _TRAILER.fullmatch(line) is None:
            raise _invalid("a trailer is not NAME: VALUE")
        self._trailer += len(line) + 2
        if self._trailer > LARGEST_HEAD:
            raise too_large()


Body = Sized | Chunked


def _invalid(why: str) -> Rejected:
    return Rejected(Invalid(f"The body is no valid HTTP/1.1: {why}."))
