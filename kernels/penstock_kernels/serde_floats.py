"""Numbers as the reference reads them from ``tokenizer.json``.

``tokenizers`` 0.23.3 reads JSON with serde_json without its feature ``float_roundtrip``: a decimal's digits
become an integer, which is converted to a double and then scaled by a power of ten, two roundings where one
would do. About one score in eight comes out one unit in the last place off, and ties between cuts of a word
depend on that unit: scores must be as wrong as the reference's.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_SIGNIFICAND_MAX = 2**64 - 1
_DIGITS_THAT_FIT = 19
_EXPONENT_MAX = 2**31 - 1
# serde_json's table of exact and of correctly rounded powers.
_POWERS = tuple(float(f"1e{exponent}") for exponent in range(309))


def parse_json_float(text: str) -> float:
    """The double that the reference reads from a JSON number.

    Args:
        text: The number as the file spells it.

    Raises:
        ValueError: It is no JSON number, or too large for a double.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a JSON number")
    sign, integer, fraction, exponent = match.groups()
    if fraction is None and exponent is None and int(integer) <= _SIGNIFICAND_MAX:
        magnitude = float(int(integer))
    else:
        magnitude = _scaled(*_significand(integer, fraction or ""), int(exponent or "0"), text)
    return -magnitude if sign else magnitude


def _significand(integer: str, fraction: str) -> tuple[int, int]:
    """The leading digits that fit into 64 bits, and the power of ten that they lack."""
    if len(integer) + len(fraction) <= _DIGITS_THAT_FIT:
        return int(integer + fraction), -len(fraction)
    significand = power = 0
    for index, digit in enumerate(integer):
        if significand * 10 + int(digit) > _SIGNIFICAND_MAX:
            power = len(integer) - index
            break
        significand = significand * 10 + int(digit)
    # After an integer that was cut, the fraction's digits still count, as far as they fit.
    for digit in fraction:
        if significand * 10 + int(digit) > _SIGNIFICAND_MAX:
            break
        significand = significand * 10 + int(digit)
        power -= 1
    return significand, power


def _scaled(significand: int, power: int, exponent: int, text: str) -> float:
    if abs(exponent) > _EXPONENT_MAX:
        if significand and exponent > 0:
            raise ValueError(f"{text} is too large for a double")
        return 0.0
    value, power = float(significand), power + exponent
    while abs(power) >= len(_POWERS):
        if not value:
            return value
        if power > 0:
            raise ValueError(f"{text} is too large for a double")
        value /= _POWERS[-1]
        power += len(_POWERS) - 1
    value = value * _POWERS[power] if power >= 0 else value / _POWERS[-power]
    if value == float("inf"):
        raise ValueError(f"{text} is too large for a double")
    return value
