"""Parts of documents that are made by scripts, between marks nobody sees."""

from __future__ import annotations

from pathlib import Path


def put_between(document: Path, name: str, text: str, *, write: bool = True) -> bool:
    """Put `text` between the marks called `name`; whether something else stood there.

    A document that is not there begins with the marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = document.read_text() if document.exists() else f"{begin}\n{end}\n"
    before, found, rest = old.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f"{document} lacks {begin} and {end}.")
    new = f"{before}{begin}\n{text}\n{end}{after}"
    if write and new != old:
        document.write_text(new)
    return new != old
