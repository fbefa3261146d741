"""What a number that stands in a file from elsewhere may be."""

from __future__ import annotations

from typing import Any

# The first moment of the year 10000, which no timestamp can show.
END_OF_TIME = 253_402_300_800
LARGEST = 2**53


def is_moment(value: Any) -> bool:
    """Whether this is a time in Unix seconds that can be shown."""
    return type(value) in (int, float) and 0 <= value < END_OF_TIME


def is_count(value: Any) -> bool:
    """Whether this is a whole number that nothing makes overflow."""
    return type(value) is int and 0 <= value < LARGEST
