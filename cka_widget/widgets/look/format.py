"""Numbers and names as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape


def decimals_for(error: float) -> int:
    """Decimals that show two significant digits of `error`, between 2 and 4."""
    if not math.isfinite(error) or error <= 0:
        return 2
    return min(max(1 - math.floor(math.log10(error)), 2), 4)


def plus_minus(error: float) -> str:
    """As in "± 0.021" or, below what is worth printing, "± < 0.0001"; "" for no error bar."""
    if not math.isfinite(error):
        return ""
    if error < 5e-5:
        return "± < 0.0001"
    return f"± {error:.{decimals_for(error)}f}"


def score(value: float, error: float = math.nan) -> str:
    """A score with as many decimals as its error bar deserves; "undefined" for NaN."""
    if not math.isfinite(value):
        return "undefined"
    text = f"{value:.{decimals_for(error)}f}"
    return text.replace("-", "−") if float(text) != 0 else text.replace("-", "")


def by_chance(value: float) -> str:
    """What unrelated features give, as in "by chance .16"."""
    return f"by chance {f'{value:.2g}'.removeprefix('0')}"


def count(number: int) -> str:
    """1,152."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def rate(per_second: float) -> str:
    """4.1 k, 870, 3.2."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if per_second >= size:
            return f"{per_second / size:.1f}{unit}"
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.1f}"


def duration(seconds: float) -> str:
    """0.2 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def memory(size: float) -> str:
    """820 kB, 14 MB, 1.2 GB (powers of ten)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return (
                f"{size / scale:.1f} {unit}" if size < 10 * scale else f"{size / scale:.0f} {unit}"
            )
    return f"{max(size / 1e3, 1):.0f} kB"


def shorten(name: str, limit: int = 18) -> str:
    """Cut the middle out of a long name; start and end tell names apart best."""
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[-tail:]}"


def tag(name: str, text: str, **attributes: str) -> str:
    """An HTML element, text and attributes escaped (`class_` for class, `aria_x` for aria-x)."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{pairs}>{escape(text)}</{name}>"


def distinct(names: Sequence[str]) -> dict[str, str]:
    """Short forms: names without the first and last words that all of them share.

    "shallow CNN" and "deep CNN" are "shallow" and "deep"; names that would vanish stay whole.
    """
    words = [name.split() for name in names]
    if len(names) < 2:
        return {name: name for name in names}
    for end in (0, -1):
        while all(len(w) > 1 for w in words) and len({w[end] for w in words}) == 1:
            words = [w[1:] if end == 0 else w[:-1] for w in words]
    return {name: " ".join(left) for name, left in zip(names, words, strict=True)}
