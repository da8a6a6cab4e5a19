"""The drill-down's small charts. Figures are made once; an update writes its marks' data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unicodedata import east_asian_width

import bqplot as bq
import numpy as np

from cka_widget.result.cell.cell_scores import CellScores, ParticleMap, Profile, Within
from cka_widget.widgets.look.format import shorten
from cka_widget.widgets.look.style import color

NOTHING = np.zeros(1)
NAMES = 92
"""Room (pixels) for the names of lanes; bqplot hears of margins only once."""
GAP = 8
"""Pixels between a name and its chart."""
LETTERS = 11
"""Size of names in pixels."""


def _figure(marks: list, axes: list, height: int, left: int, bottom: int = 24) -> bq.Figure:
    figure = bq.Figure(
        marks=marks,
        axes=axes,
        fig_margin={"top": 8, "bottom": bottom, "left": left, "right": 14},
        background_style={"fill": "transparent"},
        padding_x=0.0,
        padding_y=0.0,
        animation_duration=0,
        layout={"height": f"{height}px", "width": "100%", "min_width": "0"},
    )
    if figure.has_trait("display_toolbar"):
        figure.display_toolbar = False
    figure.add_class("cka-chart")
    return figure


def _vertical(scale: bq.Scale, **options: object) -> bq.Axis:
    """An axis on the left, without a line of its own."""
    upright = {"orientation": "vertical"} if bq.Axis.class_traits().get("orientation") else {}
    return bq.Axis(scale=scale, side="left", color="transparent", **upright, **options)


def _set(mark: bq.Mark, **values: object) -> None:
    with mark.hold_sync():
        for name, value in values.items():
            setattr(mark, name, value)


def _words(scales: dict[str, bq.Scale], **options: object) -> bq.Label:
    """A mark of names as text, in the charts' small type."""
    return bq.Label(
        x=NOTHING, y=NOTHING, text=[""], scales=scales, default_size=LETTERS,
        font_weight="normal", apply_clip=False, **options,
    )  # fmt: skip


def _fit(name: str) -> str:
    """A lane's name, cut in the middle until it fits by the usual widths of letters."""
    for limit in range(len(name), 1, -1):
        cut = shorten(name, limit)
        wide = sum(1 if east_asian_width(c) in "WF" or c in "mwMW@%" else 0.65 for c in cut)
        if wide * LETTERS <= NAMES - GAP:
            return cut
    return name


def _dots(mark: bq.Mark, x: np.ndarray, y: np.ndarray, **values: object) -> None:
    """Draw points or lines; without any the mark is hidden, since bqplot trips over empty data."""
    if len(x) and len(y):
        _set(mark, x=x, y=y, visible=True, **values)
    else:
        mark.visible = False


def _ticks(axis: bq.Axis, labels: dict[str, str]) -> None:
    """Name ticks by position. New names are drawn only when the positions change after them."""
    if axis.tick_labels == labels:
        return
    axis.tick_labels = labels
    axis.tick_values = []
    axis.tick_values = [float(at) for at in labels]


def _reach(*arrays: np.ndarray) -> tuple[float, float]:
    """0 to 1, or as far beyond as the finite data go (unbiased scores may leave the interval)."""
    flat = np.concatenate([np.ravel(a) for a in arrays]) if arrays else np.zeros(0)
    flat = flat[np.isfinite(flat)]
    low, high = (flat.min(), flat.max()) if flat.size else (0.0, 1.0)
    return (np.floor(low * 10) / 10 if low < -0.02 else 0.0), max(1.0, float(high))


class PairScores:
    """Every pair's score as a dot: the cell's own pairs, then those within each ensemble."""

    def __init__(self) -> None:
        self.x, self.y = bq.LinearScale(min=0, max=1), bq.LinearScale(min=0, max=1)
        scales = {"x": self.x, "y": self.y}
        dots = {"scales": scales, "default_size": 32, "stroke": "transparent"}
        self.pairs = bq.Scatter(x=NOTHING, y=NOTHING, colors=[color("a")], **dots)
        self.odd = bq.Scatter(x=NOTHING, y=NOTHING, colors=[color("odd")], **dots)
        self.inner = [
            bq.Scatter(x=NOTHING, y=NOTHING, colors=[color("muted")], **dots) for _ in range(2)
        ]
        for mark in (self.pairs, self.odd, *self.inner):
            mark.opacities = [0.75]
        self.mean = bq.Lines(
            x=[0, 0], y=[0, 0], scales=scales, colors=[color("text")], stroke_width=1.6
        )
        self.names = _words(scales, align="end", x_offset=-GAP)
        self._named: tuple[float, list[str], list[str]] | None = None
        self.x_axis = bq.Axis(
            scale=self.x, tick_format=".2f", grid_lines="none", color=color("line")
        )
        marks = [self.mean, *self.inner, self.pairs, self.odd, self.names]
        self.figure = _figure(marks, [self.x_axis], 104, NAMES)

    def stretch(self, lanes: int) -> None:
        """Make room for so many lanes; bqplot takes 0.3 s to follow, so do it ahead of `update`."""
        self.figure.layout.height = f"{54 + 34 * lanes}px"

    def update(self, data: CellScores, inner: Sequence[Within], slots: tuple[str, str]) -> None:
        """Draw one cell's pairs, and the pairs within each ensemble below them."""
        rows, cols = np.nonzero(data.pairs & np.isfinite(data.scores))
        values = data.scores[rows, cols]
        odd = np.array(
            [data.is_odd(int(i), int(j)) for i, j in zip(rows, cols, strict=True)], np.bool_
        )
        lanes = 1 + len(inner)
        # The row's particle gives the height within the lane: a column of dots is one partner.
        heights = lanes - 0.85 + 0.7 * (1 - (rows + 0.5) / len(data.scores))
        _dots(self.pairs, values[~odd], heights[~odd],
              colors=[color(slots[0] if data.one_ensemble else "a")])  # fmt: skip
        odd_x, odd_y = [values[odd]], [heights[odd]]
        names, tints = ["between" if inner else "pairs"], [color("muted")]
        for lane, mark in enumerate(self.inner):
            if lane >= len(inner):
                mark.visible = False
                continue
            group, count = inner[lane], len(inner[lane].scores)
            tint = color(slots[0] if group.key == data.cell.row else slots[1])
            spread = lanes - 1.85 - lane + 0.7 * ((0.5 + 0.618 * np.arange(count)) % 1)
            _dots(mark, group.scores[~group.odd], spread[~group.odd], colors=[tint])
            odd_x.append(group.scores[group.odd])
            odd_y.append(spread[group.odd])
            names.append(_fit(group.key.model))
            tints.append(tint)
        _dots(self.odd, np.concatenate(odd_x), np.concatenate(odd_y))
        low, high = _reach(values, *(group.scores for group in inner))
        _set(self.x, min=low, max=high)
        self.x_axis.tick_values = [low, 0.25, 0.5, 0.75, 1.0] if low == 0 else [low, 0.0, 0.5, 1.0]
        self.y.max = float(lanes)
        if (low, names, tints) != self._named:
            self._named = low, names, tints
            middles = lanes - 0.5 - np.arange(lanes)
            _dots(self.names, np.full(lanes, low), middles, text=names, colors=tints)
        _set(self.mean, x=[data.value] * 2, y=[lanes - 1.0, lanes - 0.02])
        self.stretch(lanes)


class DepthProfile:
    """Score against depth: mean and spread of all pairs, one thin line a particle."""

    def __init__(self) -> None:
        self.x, self.y = bq.LinearScale(min=0, max=1), bq.LinearScale(min=0, max=1)
        scales = {"x": self.x, "y": self.y}
        self.band = bq.Lines(
            x=[0, 1], y=[[0, 0], [0, 0]], scales=scales, fill="between", stroke_width=0,
            fill_opacities=[0.18], opacities=[0, 0],
        )  # fmt: skip
        self.each = bq.Lines(x=[0, 1], y=[0, 0], scales=scales, stroke_width=1)
        self.mean = bq.Lines(x=[0, 1], y=[0, 0], scales=scales, stroke_width=2)
        self.odd = bq.Lines(
            x=[0, 1], y=[0, 0], scales=scales, stroke_width=1.4, line_style="dashed",
            colors=[color("odd")],
        )  # fmt: skip
        self.here = bq.Scatter(
            x=NOTHING, y=NOTHING, scales=scales, colors=[color("pick")], default_size=56
        )
        self.name = _words(scales, align="middle", colors=[color("odd")])
        self.x_axis = bq.Axis(scale=self.x, grid_lines="none", color=color("line"))
        self.x_axis.tick_style = {"font-size": "11px"}
        self.y_axis = _vertical(
            self.y, tick_values=[0, 0.5, 1], tick_format=".1f", grid_color=color("line")
        )
        self.figure = _figure(
            [self.band, self.each, self.mean, self.odd, self.here, self.name],
            [self.x_axis, self.y_axis],
            150,
            30,
        )

    def update(self, profile: Profile, odd: Sequence[int], slot: str, name: str) -> None:
        """Draw one profile; `odd` are the particles that stand out, of the model called `name`."""
        steps = np.arange(len(profile.layers), dtype=float)
        if len(steps) == 1:  # a line needs two points
            steps = np.array([0.0, 1.0])
            profile = _doubled(profile)
        usual = [i for i in range(len(profile.scores)) if i not in odd]
        many = len(profile.scores) > 1
        width = profile.spread if profile.spread.any() else np.nan_to_num(profile.error)
        last = float(steps[-1])
        _set(self.band, x=steps, y=np.array([profile.mean - width, profile.mean + width]),
             fill_colors=[color(slot)], colors=[color(slot)])  # fmt: skip
        thin = profile.scores[usual] if many else profile.scores[:0]
        _dots(self.each, steps, thin, colors=[color(slot)], opacities=[0.3] * len(thin))
        _set(self.mean, x=steps, y=profile.mean, colors=[color(slot)])
        dashed = profile.scores[list(odd)]
        _dots(self.odd, steps, dashed, colors=[color("odd")] * len(dashed))
        here = [profile.here] if np.isfinite(profile.mean[profile.here]) else []
        _dots(self.here, np.array(here, float), profile.mean[here])
        low, high = _reach(profile.mean, profile.scores)
        _set(self.y, min=low, max=high + 0.03)
        _set(self.x, min=0.0, max=last)
        ends = {"0": shorten(profile.layers[0], 16), f"{last:.0f}": shorten(profile.layers[-1], 16)}
        _ticks(self.x_axis, ends)
        self._name_odd(profile, odd, f"{name} #{odd[0]}" if odd else "", high - low)

    def _name_odd(self, profile: Profile, odd: Sequence[int], name: str, span: float) -> None:
        """Put the first odd particle's name beside its curve, where that is far below the mean."""
        curve = profile.scores[odd[0]] if odd else np.full(len(profile.mean), np.nan)
        wide = max(1, len(curve) // 6)  # about the name's width in layers
        falls = np.lib.stride_tricks.sliding_window_view(profile.mean - curve, wide + 1).min(1)
        if not np.isfinite(falls).any():
            self.name.visible = False
            return
        at = int(np.nanargmax(falls))
        near = curve[at : at + wide + 1]
        room = near.min() - self.y.min > 0.2 * span
        place = near.min() - 0.11 * span if room else near.max() + 0.11 * span
        _dots(self.name, np.array([at + wide / 2]), np.array([place]), text=[name])


class ParticlePlane:
    """The particles on a plane: near each other where their representations are alike."""

    ASPECT = 1.9

    def __init__(self) -> None:
        scales = {
            "x": bq.LinearScale(min=-self.ASPECT, max=self.ASPECT),
            "y": bq.LinearScale(min=-1, max=1),
        }
        style = {"scales": scales, "default_size": 52, "stroke": "transparent"}
        names = {"display_names": True, "names": [""], "apply_clip": False}
        self.groups = [
            bq.Scatter(x=NOTHING, y=NOTHING, marker=marker, **style, **names)
            for marker in ("circle", "diamond")
        ]
        self.figure = _figure(list(self.groups), [], 190, 14, 12)
        self.figure.min_aspect_ratio = self.figure.max_aspect_ratio = self.ASPECT
        self.figure.add_class("cka-plane")

    def update(
        self, plane: ParticleMap, odd: Sequence[Sequence[int]], slots: Sequence[str]
    ) -> None:
        """Draw the map; `odd` lists the particles of the row and of the column that stand out."""
        placed = _centred(plane.coords, self.ASPECT)
        parts = placed[: plane.split], placed[plane.split :]
        named = _readable(plane.coords, list(odd[0]) + [plane.split + i for i in odd[1]])
        marks_named = named[: plane.split], named[plane.split :]
        for mark, coords, flagged, slot, told in zip(
            self.groups, parts, odd, slots, marks_named, strict=True
        ):
            tints = [color("odd" if i in flagged else slot) for i in range(len(coords))]
            # bqplot tells points apart by their names: unseen ones differ in length.
            names = [f"#{i}" if told[i] else "\u200b" * (i + 1) for i in range(len(coords))]
            _dots(mark, coords[:, 0], coords[:, 1], names=names, colors=tints)


CHARTS: dict[str, Any] = {
    "pairs": PairScores,
    "col": DepthProfile,
    "row": DepthProfile,
    "plane": ParticlePlane,
}
"""What draws each panel of the drill-down."""


def _centred(coords: np.ndarray, aspect: float) -> np.ndarray:
    """Brought to the middle of a plane of height 2 and width 2 `aspect`, with a margin.

    One unit stays as long on both axes, or the picture would invent distances.
    """
    finite = coords[np.isfinite(coords).all(1)]
    if not len(finite):
        return coords
    half = np.ptp(finite, axis=0) / 2
    tall = max(half[1], half[0] / aspect, 0.02) * 1.25
    centred: np.ndarray = (coords - finite.min(0) - half) / tall
    return centred


def _readable(coords: np.ndarray, first: Sequence[int]) -> list[bool]:
    """Which points get their name: the `first`, then those whose name would not cover another."""
    finite = np.isfinite(coords).all(1)
    size = np.ptp(coords[finite], axis=0).max() if finite.any() else 1.0
    named: list[int] = []
    for i in [*first, *(i for i in range(len(coords)) if i not in first)]:
        apart = np.abs(coords[named] - coords[i]) > np.array([0.12, 0.08]) * size
        if finite[i] and (i in first or apart.any(1).all()):
            named.append(i)
    return [i in named for i in range(len(coords))]


def _doubled(profile: Profile) -> Profile:
    two = [0, 0]
    return Profile(
        profile.model,
        profile.layers,
        profile.scores[:, two],
        profile.mean[two],
        profile.spread[two],
        profile.error[two],
        0,
    )
