"""What a layer does that the reader of its row, or of its missing row, should know."""

from __future__ import annotations

MORE_CALLS_LATER = (
    "ran more often in a later batch than in the first: "
    "the calls beyond the first batch's are left out."
)
LATE = (
    "ran in a later batch and not in the first: it is left out; begin with a batch that it runs on."
)
IN_SOME = (
    "did not run in all particles: pairs with one in which it did not run are undefined, and so is "
    "their mean; particles() shows the others."
)
OWN_TENSOR_LATER = (
    "gave the same tensor as another layer in the first batch, and one of its own in a later one: "
    "it counts as that layer; name both in layers= to have a row of each."
)
STEPS = (
    "(batch_first=False) takes for time the axis that is counted as samples: give batches whose "
    "first axis is the samples, to a model that transposes them or has batch_first=True."
)
SAMPLES = (
    "(batch_first=True) takes for samples what are steps, and runs over the samples as over time: "
    "transpose its input, or make it with batch_first=False."
)
LEFT_OUT = "is left out, though it holds samples: "
DISPROVED = (
    "has nothing for each sample in a later batch: its scores are undefined, why() says the reason."
)
UNPROVED = (
    "counts as having its samples along the first axis that is as long as the batch, which nothing "
    "proves: it was not seen with 2 and 3 samples, and all batches had as many samples; give one "
    "batch of another size."
)
UNMASKED = (
    "has tokens that the batch's attention_mask does not mark: if some of them are padding, that "
    "counts as data; leave the layer out, or give batches without padding."
)


class Notes:
    """What there is to say of the layers of one model, from all its forward passes.

    Attributes:
        found: pairs of a layer and what is to be said of it, each once, in order.
        late: calls (layer, number) that a later batch had and the first had not.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], None] = {}
        self.late: set[tuple[str, int]] = set()

    def unknown_call(self, name: str, call: int) -> None:
        """A call that the first batch had not."""
        self.late.add((name, call))
        self.found[name, LATE if (name, 1) in self.late else MORE_CALLS_LATER] = None

    def own_tensor(self, name: str) -> None:
        """An alias gave a tensor of its own."""
        self.found[name, OWN_TENSOR_LATER] = None

    def steps(self, name: str, *, batch_first: bool) -> None:
        """A module runs over the samples as if they were steps."""
        self.found[name, SAMPLES if batch_first else STEPS] = None

    def left_out(self, name: str, why: str) -> None:
        """A module's output holds samples, and nothing for each; `why: details`."""
        self.found[name, f"{LEFT_OUT}{why.partition(':')[0]}."] = None

    def disproved(self, name: str) -> None:
        """A later output of a layer has nothing for each sample."""
        self.found[name, DISPROVED] = None

    def unmasked(self, name: str) -> None:
        """The mask does not fit a module's tokens."""
        self.found[name, UNMASKED] = None
