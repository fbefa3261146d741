"""What a vector is: float32 bytes of length one, so that a product is the cosine.

A model is its name and its dimension; vectors of two models are never compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from botwire_server.lazy import numpy as np
from botwire_server.limits import DIMENSION

if TYPE_CHECKING:
    from numpy.typing import NDArray

Vector = bytes


class Model(NamedTuple):
    """Whose vectors they are."""

    name: str
    dimension: int


# Vectors that requests bring along where the server has no model of its own.
GIVEN = "given"


def from_numbers(numbers: Any) -> Vector:
    """A vector from a list of numbers.

    Raises `ValueError`, saying what is wrong: no list of finite numbers, too long, all zero.
    """
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= DIMENSION:
        raise ValueError(f"must be a list of 1 to {DIMENSION} numbers")
    # orjson knows no NaN, but 1e999 and a dialect's own decoder may.
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError("must hold finite numbers only")
    largest = max(map(abs, numbers))
    if largest == 0:
        raise ValueError("must not be all zero")
    # Scaled first, so that no square is too large or too small for a float.
    vector = normalised(np.array([number / largest for number in numbers], dtype=np.float32))
    assert vector is not None
    return vector


def normalised(vector: NDArray[np.float32]) -> Vector | None:
    """A vector of length one; None for one without direction."""
    length = float(np.linalg.norm(vector))
    if not length > 0 or not math.isfinite(length):
        return None
    return (vector / np.float32(length)).astype(np.float32).tobytes()
