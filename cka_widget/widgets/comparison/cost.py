"""What a run will compute and cost, told before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from cka_widget.engine.grams.memory import bytes_needed
from cka_widget.widgets.look.format import count, duration, memory, plural, tag

STEP = 2e-4
"""Seconds that a row takes of every batch beside the arithmetic, on a CPU."""

WORDS = {
    "idle": (
        "Ready to compare",
        "How alike are the layers of {models}? One pass over the data fills a heatmap of "
        "{measures}.",
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
class Costs:
    """What does not depend on the chosen layers; None for what is not known.

    Attributes:
        samples: of all batches.
        batch: samples of one.
        block: `hsic_batch_size`; None is the whole batch.
        forward: seconds of one sample's passes through all particles, measured.
        speed: multiplications and additions of a matrix product in a second, measured.
        elsewhere: whether the run will be on another, faster device than what was measured.
    """

    samples: int | None
    batch: int | None
    block: int | None
    forward: float | None
    speed: float
    elsewhere: bool = False


@dataclass(frozen=True)
class Plan:
    """A run of some layers.

    Attributes:
        layers: rows that the heatmap will show of each model; a module gives one a call.
        particles: of each model.
        features: numbers a sample in the outputs of all rows together.
        costs: the rest.
        rate: samples a second of a run of the same layers, None before there was one.
        measures: titles of what is computed.
    """

    layers: Mapping[str, int]
    particles: Mapping[str, int]
    features: int
    costs: Costs
    rate: float | None = None
    measures: Sequence[str] = ("CKA",)

    @property
    def rows(self) -> int:
        """Rows of the one symmetric matrix: every layer of every particle."""
        return sum(n * self.particles[name] for name, n in self.layers.items())

    @property
    def memory(self) -> float | None:
        """Bytes of the Grams of one batch and the sums of all pairs of rows."""
        batch = self.costs.batch
        return None if batch is None else bytes_needed(self.rows, batch, self.costs.block)

    @property
    def seconds(self) -> float | None:
        """Expected time, by an earlier run or by a few forward passes and products.

        A block of m samples takes 2 m^2 operations a feature for its Grams and m^2 a pair of rows
        for their products.
        """
        samples, batch, forward = self.costs.samples, self.costs.batch, self.costs.forward
        if samples is None:
            return None
        if self.rate:
            return samples / self.rate
        if batch is None or forward is None:
            return None
        block = min(self.costs.block or batch, batch)
        operations = block * (2 * self.features + self.rows**2)
        return samples * (forward + operations / self.costs.speed + self.rows * STEP / batch)


def plan_html(plan: Plan, row_model: str, col_model: str, state: str = "idle") -> str:
    """The sentence and the figures that stand in the heatmap's place before the first result."""
    names = list(dict.fromkeys((row_model, col_model)))
    if not all(plan.layers.get(name) for name in names):
        return (
            '<div class="cka-plan"><h3>Choose some layers</h3>'
            "<div>Tick at least one layer of each model on the left.</div></div>"
        )
    said = [escape(name) for name in names]
    against = f"{said[0]} against {'itself' if len(said) == 1 else said[1]}"
    facts = _facts(plan, row_model, col_model)
    rows = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    title, text = WORDS.get(state, WORDS["idle"])
    text = text.format(against=against, models=" and ".join(said), measures=_measures(plan))
    return f'<div class="cka-plan"><h3>{title}</h3><div>{text}</div><dl>{rows}</dl></div>'


def _measures(plan: Plan) -> str:
    if list(plan.measures) == ["CKA"]:
        return "centered kernel alignment (CKA)"
    titles = "; ".join(map(escape, plan.measures))
    return titles if len(plan.measures) == 1 else f"{len(plan.measures)} measures: {titles}"


def cost_html(plan: Plan, row_model: str, col_model: str) -> str:
    """The figures in one line, for beside the Run button; "" where a model has no layer ticked."""
    if not all(plan.layers.get(name) for name in (row_model, col_model)):
        return ""
    facts = dict(_facts(plan, row_model, col_model))
    text = " · ".join(facts[name] for name in ("heatmap", "memory", "time") if name in facts)
    return tag("span", text, class_="cka-muted", title="what a run of the ticked layers takes")


def _facts(plan: Plan, row_model: str, col_model: str) -> Iterator[tuple[str, str]]:
    rows, cols = plan.layers[row_model], plan.layers[col_model]
    yield "heatmap", f"{plural(rows, 'row')} × {plural(cols, 'column')}"
    particles = [plan.particles[name] for name in dict.fromkeys((row_model, col_model))]
    if max(particles) > 1:
        yield "particles", " and ".join(map(count, particles))
    if plan.costs.samples is not None:
        yield "data", plural(plan.costs.samples, "sample")
    if plan.memory is not None:
        yield "memory", f"about {memory(plan.memory)}"
    if plan.seconds is not None:
        bound = plan.costs.elsewhere and not plan.rate
        yield "time", f"{'at most' if bound else 'about'} {duration(plan.seconds)}"
