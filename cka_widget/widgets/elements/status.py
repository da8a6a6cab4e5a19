"""Progress bar, state line, and what went wrong or deserves a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import ipywidgets as widgets

from cka_widget.widgets.look.format import count, duration, plus_minus, rate, tag
from cka_widget.widgets.run.runner import Failure, Progress

WORDS = {
    "idle": "ready",
    "running": "",
    "paused": "paused",
    "done": "done",
    "cancelled": "cancelled",
    "failed": "failed",
}
SPOKEN = {
    "idle": "Ready to run",
    "running": "The comparison is running",
    "paused": "The comparison is paused",
    "done": "The comparison is done",
    "cancelled": "The comparison was cancelled; what was computed is shown",
    "failed": "The comparison failed",
}


class StatusLine(widgets.VBox):
    """Writes one line of text a publication; a change of state is spoken too, by `waiting`.

    Args:
        waiting: widget below the line that says what a pressed button waits for.
    """

    def __init__(self, waiting: widgets.DOMWidget) -> None:
        self.bar, self.line = widgets.HTML(), widgets.HTML()
        self.notes, self.live = widgets.HTML(), widgets.HTML()
        super().__init__([self.bar, self.line, waiting, self.notes, self.live])
        self._said = ""
        self._at = 0.0

    def show(self, state: str, progress: Progress, worst: float, setting: str) -> None:
        """Args: state; progress; largest standard error (NaN if none); device and estimator."""
        done = 1.0 if state == "done" else progress.fraction
        self.bar.value = _bar(state, progress, done, self._at)
        self._at = done or 0.0
        self.line.value = _line(state, progress, worst, setting)

    def speak(self, state: str, failure: Failure | None) -> None:
        """Have a change of state read aloud: the page takes the words from here."""
        text = SPOKEN[state] + (f": {failure.sentence}" if failure else "")
        if text != self._said:
            self._said = text
            self.live.value = tag("div", text, class_="cka-said")

    def note(self, sentences: Sequence[str], failure: Failure | None = None) -> None:
        """Show warnings, and the failure with its traceback folded away."""
        parts = []
        if failure is not None:
            parts.append(
                f'<div class="cka-error" role="alert">{tag("b", "The run failed: ")}'
                f"{escape(failure.sentence)}<details><summary>traceback</summary>"
                f"{tag('pre', failure.traceback, tabindex='0')}</details></div>"
            )
        parts += [
            f'<div role="alert">{tag("span", "⚠", aria_hidden="true")}{tag("span", s)}</div>'
            for s in sentences
        ]
        text = f'<div class="cka-notes">{"".join(parts)}</div>' if parts else ""
        if text != self.notes.value:
            self.notes.value = text


def _bar(state: str, progress: Progress, done: float | None, before: float) -> str:
    """The bar at `done` of its length, growing from where it stood `before`."""
    if done is None:
        unknown = state in ("running", "paused") and progress.batches > 0
        style, extra = ("" if unknown else "width:0"), (" cka-unknown" if unknown else "")
        value = ""
    else:
        style, extra = f"--cka-from:{100 * min(before, done):.2f}%;width:{100 * done:.2f}%", ""
        value = f' aria-valuenow="{100 * done:.0f}"'
    return (
        f'<div class="cka-bar cka-{state}{extra}" role="progressbar" '
        'aria-label="progress of the run"'
        f' aria-valuemin="0" aria-valuemax="100"{value}><i style="{style}"></i></div>'
    )


def _line(state: str, progress: Progress, worst: float, setting: str) -> str:
    parts = []
    word = WORDS[state] or ("" if progress.samples else "running, first batch")
    if word:
        parts.append(tag("span", word, class_=f"cka-word cka-{state}"))
    if progress.samples:
        parts.append(_of(progress.samples, progress.total_samples, "samples", state == "running"))
        parts.append(f"<span>{escape(_batches(progress, state))}</span>")
        if progress.before:
            parts.append(
                f"<span>{tag('b', count(progress.before + progress.samples))} in all</span>"
            )
    if progress.rate and state in ("running", "paused"):
        parts.append(f"<span>{tag('b', rate(progress.rate))} samples/s</span>")
    left = progress.seconds_left
    if state == "running" and left:
        parts.append(tag("span", f"about {duration(left)} left"))
    elif state in ("done", "cancelled", "failed") and progress.seconds:
        parts.append(tag("span", f"took {duration(progress.seconds)}"))
    if math.isfinite(worst):
        parts.append(f"<span>largest error bar {tag('b', plus_minus(worst))}</span>")
    elif progress.samples:
        few = " before 5 batches" if progress.batches < 5 else ""
        parts.append(f"<span>no error bars{few}</span>")
    parts.append(tag("span", setting, class_="cka-end"))
    return f'<div class="cka-state">{"".join(parts)}</div>'


def _of(number: int, total: int | None, noun: str, running: bool) -> str:
    rest = f" / {count(total)}" if total and (running or number != total) else ""
    return f"<span>{tag('b', count(number))}{rest} {noun}</span>"


def _batches(progress: Progress, state: str) -> str:
    total = progress.total_batches
    if total and (state in ("running", "paused") or total != progress.batches):
        return f"{count(progress.batches)} of {count(total)} batches"
    return f"{count(progress.batches)} batches"
