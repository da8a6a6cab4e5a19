"""What a run will compute and cost, told before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from cka_widget.engine.budget import bytes_needed
from cka_widget.widgets.format import count, duration, memory, plural

OVERHEAD = 1.4
"""Time of a comparison over that of its forward passes, small models on a CPU."""

WORDS = {
    "idle": (
        "Ready to compare",
        "How alike are the layers of {models}? One pass over the data fills a heatmap of "
        "centered kernel alignment (CKA).",
    ),
    "running": ("The first batch is on its way", "The heatmap of {against} appears with it."),
    "paused": ("Paused before the first batch", "The heatmap of {against} appears with it."),
    "cancelled": ("Cancelled before the first batch", "Nothing was computed of {against}."),
    "failed": (
        "Nothing was computed",
        "The comparison of {against} failed at its first batch; the message above says why.",
    ),
}


@dataclass(frozen=True)
class Plan:
    """Rows and columns of the heatmap, samples, memory (bytes), time (seconds, or None)."""

    layers: Mapping[str, int]
    particles: Mapping[str, int]
    samples: int | None
    batch: int | None
    block: int | None
    seconds_a_sample: float | None

    @property
    def rows(self) -> int:
        """Rows of the one symmetric matrix: every layer of every particle."""
        return sum(n * self.particles[name] for name, n in self.layers.items())

    @property
    def memory(self) -> float | None:
        """Of the Grams of one batch and the sums of all pairs of rows."""
        return None if self.batch is None else bytes_needed(self.rows, self.batch, self.block)

    @property
    def seconds(self) -> float | None:
        """Expected time, by a few forward passes made beforehand."""
        if self.samples is None or self.seconds_a_sample is None:
            return None
        return OVERHEAD * self.samples * self.seconds_a_sample


def plan_html(plan: Plan, row_model: str, col_model: str, state: str = "idle") -> str:
    """The sentence and the figures that stand in the heatmap's place before the first result."""
    names = [row_model] if row_model == col_model else [row_model, col_model]
    if not all(plan.layers.get(name) for name in names):
        return (
            '<div class="cka-plan"><h3>Choose some layers</h3>'
            "<div>Tick at least one layer of each model on the left.</div></div>"
        )
    said = [escape(name) for name in names]
    against = f"{said[0]} against {'itself' if len(said) == 1 else said[1]}"
    facts = [
        (
            "heatmap",
            f"{count(plan.layers[row_model])} rows × {count(plan.layers[col_model])} columns",
        )
    ]
    particles = [plan.particles[name] for name in names]
    if max(particles) > 1:
        facts.append(("particles", " and ".join(count(n) for n in particles)))
    if plan.samples is not None:
        facts.append(("data", plural(plan.samples, "sample")))
    if plan.memory is not None:
        facts.append(("memory", f"about {memory(plan.memory)}"))
    if plan.seconds is not None:
        facts.append(("time", f"about {duration(plan.seconds)}"))
    rows = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    title, text = WORDS.get(state, WORDS["idle"])
    text = text.format(against=against, models=" and ".join(said))
    return f'<div class="cka-plan"><h3>{title}</h3><div>{text}</div><dl>{rows}</dl></div>'
