"""Screenshots beside kept ones, so that no machine's fonts or smoothing make them differ.

All text is set in a font of our own, where every letter is the same box. A picture then becomes
a grid of blocks, each with its mean colour and how rough it is (the standard deviation of its
lightness, which tells hatching and text from paper). A block counts as changed where it is not as
it was, nor after a move by at most three pixels. What is kept is the grid as a small PNG: colours
above, roughness below.
"""

from __future__ import annotations

import base64
import io
import os
from functools import cache
from pathlib import Path

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

FOLDER = Path(__file__).with_name("kept")
GRID = 32, 48
ALIKE = 12.0
"""Two blocks are alike where no colour channel and no roughness differs by more (of 255)."""
MOVES = range(-3, 4)
"""Pixels by which a part of the picture may have moved, down and to the right."""
TOLERANCE = 0.004
"""Share of changed blocks up to which two pictures are the same: 6 of the 1,536."""


@cache
def font_css() -> str:
    """A style sheet with the font; it is used by everything of ours."""
    pen = TTGlyphPen(None)
    corners = [(60, 0), (60, 480), (440, 480), (440, 0)]
    pen.moveTo(corners[0])
    for corner in corners[1:]:
        pen.lineTo(corner)
    pen.closePath()
    box, empty = pen.glyph(), TTGlyphPen(None).glyph()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "box", "space"])
    blank = (0x20, 0xA0, 0x2009, 0x200B)
    font.setupCharacterMap({c: "space" if c in blank else "box" for c in range(0x20, 0x3000)})
    font.setupGlyf({".notdef": box, "box": box, "space": empty})
    font.setupHorizontalMetrics(dict.fromkeys((".notdef", "box", "space"), (500, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Boxes", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    file = io.BytesIO()
    font.save(file)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f"@font-face {{ font-family: Boxes; src: url(data:font/ttf;base64,{data}); }} "
        "body, .cka-root { --cka-font: Boxes !important; font-family: Boxes !important; }"
    )


def pixels(png: bytes) -> np.ndarray:
    """Colours of a screenshot, (height, width, 3), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float32)


def grid(colours: np.ndarray) -> np.ndarray:
    """Blocks of a picture, (32, 48, 4): red, green, blue, roughness, 0 to 255."""
    rows, cols = GRID
    height, width = colours.shape[0] // rows, colours.shape[1] // cols
    blocks = colours[: rows * height, : cols * width].reshape(rows, height, cols, width, 3)
    rough = blocks.mean(4).std((1, 3))
    return np.dstack([blocks.mean((1, 3)), rough])


def difference(name: str, png: bytes) -> float:
    """Share of the kept picture's blocks that are not in this one, 0 to 1."""
    now, before = pixels(png), load(name)
    height, width, _ = now.shape
    most = max(MOVES)
    around = np.pad(now, ((most, most), (most, most), (0, 0)), mode="edge")
    nearest = np.full(GRID, np.inf)
    for down in MOVES:
        for right in MOVES:
            moved = around[most + down :, most + right :][:height, :width]
            nearest = np.minimum(nearest, np.abs(before - grid(moved)).max(2))
    return float((nearest > ALIKE).mean())


def load(name: str) -> np.ndarray:
    """The grid that is kept under a name."""
    picture = np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGB"), dtype=float)
    return np.dstack([picture[: GRID[0]], picture[GRID[0] :, :, :1]])


def keep(name: str, blocks: np.ndarray) -> None:
    """Write a grid under a name."""
    rough = np.repeat(blocks[..., 3:], 3, 2)
    picture = np.vstack([blocks[..., :3], rough]).round().astype(np.uint8)
    Image.fromarray(picture).save(FOLDER / f"{name}.png", optimize=True)


def assert_as_kept(name: str, png: bytes) -> None:
    """The screenshot is that of the kept picture; with CKA_RENEW=1 it takes its place."""
    if os.environ.get("CKA_RENEW"):
        keep(name, grid(pixels(png)))
    share = difference(name, png)
    assert share <= TOLERANCE, f"{100 * share:.1f}% of {name} changed"
