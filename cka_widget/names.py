"""Names as a file, a page or a picture can hold them, and the name that was perhaps meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Half of a pair of surrogates, which Python's texts can hold and no encoded text.
_LONE = re.compile("[\ud800-\udfff]")


def writable(text: str) -> str:
    """The text with a replacement character in the place of what cannot be encoded."""
    return _LONE.sub("\ufffd", text)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The end of a sentence that offers the nearest of the known names; "" where none is near."""
    near = difflib.get_close_matches(str(name), list(map(str, known)), n=1, cutoff=0.5)
    return f'; did you mean "{near[0]}"?' if near else ""
