"""Numbers as a reader sees them: as many digits as they deserve, and no more."""

import math


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, thousands apart, a true minus sign; `–` for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        return _minus(_power(value, digits))
    decimals = max(0, digits - 1 - size)
    text = f"{value:,.{decimals}f}"
    return _minus(text)


def short(value: float) -> str:
    """Two significant digits without trailing zeros, for the ends of an axis."""
    if 0 < abs(value) < 1e-4:
        return number(value, 2)
    return _minus(f"{float(f'{value:.2g}'):g}")


def count(value: int) -> str:
    """A whole number, thousands apart."""
    return f"{value:,}"


def share(value: float | None) -> str:
    """A proportion as a percentage, fine enough for rare things."""
    if value is None:
        return "–"
    percent = 100 * value
    if percent == 0 or percent >= 10:
        return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"
    return f"{number(percent, 2)} %"


def plural(amount: int, noun: str) -> str:
    """`1 gate`, `3 gates`."""
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def _power(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{superscript}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
