"""Names of layers and models as text that a file, a page or a picture can hold."""

from __future__ import annotations

import re

# Half of a pair of surrogates, which Python's texts can hold and no encoded text.
_LONE = re.compile("[\ud800-\udfff]")


def writable(text: str) -> str:
    """The text with a replacement character in the place of what cannot be encoded."""
    return _LONE.sub("\ufffd", text)
