"""Numbers as people read them.  Tables keep raw values; only what is shown is rounded, here."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal

from harness.schema import METRICS

DASH = "–"
_SCALES: tuple[tuple[float, str], ...] = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BYTES: tuple[tuple[float, str], ...] = ((1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB"))


def missing(value: float | None) -> bool:
    """Whether there is no number."""
    return value is None or math.isnan(value)


def fixed(value: float | None, decimals: int) -> str:
    """Fixed decimals with a proper minus sign, or a dash."""
    return DASH if value is None or math.isnan(value) else f"{value:.{decimals}f}".replace("-", "−")


def score(value: float | None) -> str:
    """A DSC or NSD."""
    return fixed(value, METRICS["dsc"].decimals)


def interval(low: float | None, high: float | None, decimals: int = METRICS["dsc"].decimals) -> str:
    """Both ends of an interval: ``[0.712, 0.804]``; nothing where there is none."""
    return "" if missing(low) or missing(high) else f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def probability(value: float | None) -> str:
    """A p value: ``0.013``, ``<0.001``."""
    return "<0.001" if value is not None and value < 0.001 else fixed(value, 3)


def signed(value: float | None, decimals: int = METRICS["dsc"].decimals) -> str:
    """Fixed decimals with a sign: ``+0.012``."""
    return ("+" if value is not None and value > 0 else "") + fixed(value, decimals)


def agreement(value: float | None) -> str:
    """A share that is never rounded up: ``1.0000`` means all, and 0.98996 is not shown as the 0.99 it misses."""
    if value is None or math.isnan(value):
        return DASH
    step = Decimal(1).scaleb(-METRICS["mask_agreement"].decimals)
    return str(Decimal(repr(float(value))).quantize(step, rounding=ROUND_FLOOR))


def times(value: float | None) -> str:
    """A ratio of two times: ``×0.52``."""
    return DASH if value is None or math.isnan(value) else f"×{_three(value) if value >= 10 else fixed(value, 2)}"


def tiny(value: float | None) -> str:
    """Two significant figures at any magnitude: ``0.11``, ``1.2·10⁻⁵``."""
    if value is None or math.isnan(value):
        return DASH
    if value == 0 or abs(value) >= 1e-3:
        return fixed(value, 0 if value == 0 else max(0, 1 - math.floor(math.log10(abs(value)))))
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.replace('-', '−')}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def power(value: float) -> str:
    """One significant figure and a power of ten: ``10⁻⁴``, ``5·10⁻⁴``."""
    digit, exponent = f"{value:.0e}".split("e")
    ten = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return ten if digit == "1" else f"{digit}·{ten}"


def percent(value: float | None) -> str:
    """A share in percent: ``7 %``, ``0.4 %``."""
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:.{0 if value >= 0.1 or value == 0 else 1}f} %"


def count(value: float | None) -> str:
    """A whole number with thin groups: ``9,791,300``."""
    return DASH if value is None or math.isnan(value) else f"{value:,.0f}".replace("-", "−")


def scaled(value: float | None) -> str:
    """Three significant figures with an SI prefix: ``9.79 M``, ``37.8 G``."""
    if value is None or math.isnan(value):
        return DASH
    for size, prefix in _SCALES:
        if abs(value) >= size:
            return f"{_three(value / size)} {prefix}"
    return count(value)


def seconds(value: float | None) -> str:
    """Seconds, three significant figures: ``0.394``, ``3.37``, ``152``."""
    return DASH if value is None or math.isnan(value) else _three(value)


def size(value: float | None) -> str:
    """Bytes with a binary prefix: ``263 MiB``."""
    if value is None or math.isnan(value):
        return DASH
    for unit_size, unit in _BYTES:
        if abs(value) >= unit_size:
            return f"{_three(value / unit_size)} {unit}"
    return f"{value:.0f} B"


def _three(value: float) -> str:
    """Three significant figures without exponent; at most three decimals."""
    magnitude = 0 if value == 0 else math.floor(math.log10(abs(value)))
    return f"{value:.{min(3, max(0, 2 - magnitude))}f}".replace("-", "−")


def of_metric(metric: str, value: float | None) -> str:
    """A value in the unit of its metric, with the unit where it is not 1."""
    if missing(value):
        return DASH
    unit = METRICS[metric].unit
    if unit == "bytes":
        return size(value)
    if unit == "s":
        return f"{seconds(value)} s"
    if unit in ("count", "multiply-adds"):
        return scaled(value)
    return fixed(value, METRICS[metric].decimals)


def metric_title(metric: str) -> str:
    """``DSC``; ``Wall time, s``; ``Multiply-adds``, which say their unit themselves."""
    title, unit = METRICS[metric].title, METRICS[metric].unit
    return title if unit in ("1", "count") or unit in title.lower().split() else f"{title}, {unit}"


def duration(value: float | None) -> str:
    """A span of time in words: ``42 s``, ``5 min 42 s``, ``3 h 07 min``."""
    if value is None or math.isnan(value):
        return DASH
    if value < 60:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def plural(number: int, noun: str, many: str | None = None) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def sentence(text: str) -> str:
    """With a capital first letter and a full stop."""
    stripped = text.strip()
    if not stripped:
        return ""
    return stripped[0].upper() + stripped[1:] + ("" if stripped[-1] in ".!?" else ".")
