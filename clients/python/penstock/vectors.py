"""Vectors as calls return them: in the bytes as they came."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

from penstock.answers import Answers
from penstock.v1 import common_pb2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

_NUMBERS_SHOWN = 4


class Embedding(Sequence[float]):
    """The vector of one text: float32 numbers in the bytes as they came, without a Python object each."""

    __slots__ = ("_numbers", "_packed")

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._numbers = _floats_of(packed)

    @classmethod
    def of(cls, message: common_pb2.Embedding) -> Embedding:
        """Reads the server's message, packed or not."""
        return cls.of_numbers(message.values) if message.values else cls(message.packed)

    @classmethod
    def of_numbers(cls, values: Iterable[float]) -> Embedding:
        """Packs numbers, rounded to float32."""
        numbers = array("f", values)
        if sys.byteorder == "big":
            numbers.byteswap()
        return cls(numbers.tobytes())

    @property
    def packed(self) -> bytes:
        """The numbers as little-endian IEEE 754 single precision, 4 bytes each."""
        return self._packed

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> list[float]: ...
    def __getitem__(self, index: int | slice) -> float | list[float]:
        if isinstance(index, slice):
            return cast("list[float]", self._numbers[index].tolist())
        return self._numbers[index]

    def __len__(self) -> int:
        return len(self._numbers)

    def tolist(self) -> list[float]:
        """Returns the numbers as a new list."""
        return cast("list[float]", self._numbers.tolist())

    def to_numpy(self) -> NDArray[np.float32]:
        """Returns a read-only float32 ``[dimensions]`` view of the bytes. Needs numpy."""
        import numpy as np

        return np.frombuffer(self._packed, dtype="<f4")

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return _as_asked(self.to_numpy(), dtype, copy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Embedding) and self._packed == other._packed

    def __hash__(self) -> int:
        return hash(self._packed)

    def __repr__(self) -> str:
        shown = ", ".join(f"{number:.4f}" for number in self[:_NUMBERS_SHOWN])
        more = ", …" if len(self) > _NUMBERS_SHOWN else ""
        return f"Embedding([{shown}{more}], dimensions={len(self)})"


class Embeddings(Answers[Embedding]):
    """One vector for each text."""

    __slots__ = ()

    @property
    def dimensions(self) -> int:
        """Numbers in each vector; 0 if there are no vectors."""
        return len(self[0]) if len(self) else 0

    def tolist(self) -> list[list[float]]:
        """Returns the vectors as new lists."""
        return [row.tolist() for row in self]

    def to_numpy(self) -> NDArray[np.float32]:
        """Returns a new float32 array ``[rows, dimensions]``. Needs numpy."""
        import numpy as np

        joined = b"".join(row.packed for row in self)
        return np.frombuffer(joined, dtype="<f4").reshape(len(self), self.dimensions)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return _as_asked(self.to_numpy(), dtype, copy)


def _floats_of(packed: bytes) -> memoryview[float]:
    if sys.byteorder == "little":
        return memoryview(packed).cast("f")
    numbers = array("f", packed)
    numbers.byteswap()
    return memoryview(numbers).cast("B").cast("f")


def _as_asked(numbers: NDArray[np.float32], dtype: DTypeLike | None, copy: bool | None) -> NDArray[Any]:
    """Serves numpy's ``__array__`` protocol: ``copy`` False forbids a copy, True demands one."""
    if dtype is None or numbers.dtype == dtype:
        return numbers.copy() if copy else numbers
    if copy is False:
        raise ValueError(f"a vector of float32 cannot become {dtype} without a copy")
    return numbers.astype(dtype)
