"""How a batch becomes a call of the model: what its `forward` takes is read, not guessed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor, nn

from cka_widget.engine.data.batches import LABEL_KEYS, are_samples, hold_samples, tensors
from cka_widget.engine.data.class_labels import is_class_per_sample, is_label

Forward = Callable[[nn.Module, Any], Any]
Forwards = Forward | Mapping[str, Forward | None] | None


class Takes(NamedTuple):
    """What a `forward` takes: names of its parameters, and whether it takes any besides."""

    positional: tuple[str, ...] = ()
    keywords: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    any_position: bool = True
    any_keyword: bool = True


class LeftOut(NamedTuple):
    """A part of a batch that the model was not given, though it might take it."""

    where: str  # such as `batch[1]`
    parameter: str  # "" where it has no name
    is_label: bool


class Call(NamedTuple):
    """One call of a model, `model(*args, **kwargs)`, and how it is written."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    written: str
    left_out: tuple[LeftOut, ...] = ()


def takes(model: nn.Module) -> Takes:
    """What the model's `forward` takes; anything, where its signature cannot be read."""
    own = vars(model).get("forward")  # of this module alone, as hooks of other libraries set it
    return _takes_of_method(type(model).forward) if own is None else _read(own)


@lru_cache(maxsize=512)
def _takes_of_method(function: Any) -> Takes:
    return _read(function, skip=1)


def _read(function: Any, skip: int = 0) -> Takes:
    try:
        found = list(inspect.signature(function).parameters.values())[skip:]
    except (TypeError, ValueError):
        return Takes()
    positional = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p for p in found if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return Takes(
        tuple(p.name for p in positional),
        frozenset(p.name for p in keywords),
        frozenset(p.name for p in (*positional, *keywords) if p.default is p.empty),
        any(p.kind is p.VAR_POSITIONAL for p in found),
        any(p.kind is p.VAR_KEYWORD for p in found),
    )


def forward_of(forward: Any, model: str) -> Any:
    """The function for one model out of a function for all or a mapping by model name."""
    return forward.get(model) if isinstance(forward, Mapping) else forward


def run_model(model: nn.Module, batch: Any, forward: Forward | None) -> Any:
    """Call the model on a batch, by `forward` when given."""
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Tensor):
        return model(batch)
    call = as_call(batch, model)
    return model(*call.args, **call.kwargs)


class AsUsual:
    """A `forward=` that looks on, and calls the model as without it."""

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        """Run the model on a batch."""
        return run_model(model, batch, None)


def as_call(batch: Any, model: nn.Module) -> Call:
    """How a batch becomes a call.

    A tensor or a dataclass goes in as it is; a mapping goes in as keyword arguments; a tuple or
    list gives its first element, and the others where the parameter of that place has no default.
    Labels, and what else `forward` has a default for, are left out.

    Raises:
        TypeError: a batch of which this cannot be told; the message offers `forward=`.
    """
    if isinstance(batch, Call):
        return batch
    known = takes(model)
    if isinstance(batch, Mapping):
        call = _by_name(batch, known, "**batch", model)
    elif hasattr(batch, "_fields") and known.required and known.required <= set(batch._fields):
        fields = {k: v for k, v in batch._asdict().items() if k in known.keywords}
        call = _by_name(fields, known, "**batch._asdict()", model)
    elif isinstance(batch, (tuple, list)) and batch:
        call = _by_place(batch, known, model)
    else:
        call = Call((batch,), {}, "batch")
    _refuse_what_is_no_tensor(batch, call)
    return call


# tuples and lists ---------------------------------------------------------------------------------
def _by_place(batch: Any, known: Takes, model: nn.Module) -> Call:
    first, *others = batch
    _refuse_samples(batch, known, model)
    args: list[Any] = [first]
    written, places, kwargs = ["batch[0]"], list(known.positional[1:]), {}
    left: list[LeftOut] = []
    if isinstance(first, Mapping):
        inner = _by_name(first, known, "**batch[0]", model)
        args, kwargs, written = [], inner.kwargs, [inner.written]
        left += inner.left_out
        places = [name for name in known.positional if name not in kwargs]
    elif _spreads(first, others, known):
        args, written, places = list(first), ["*batch[0]"], list(known.positional[len(first) :])
    for i, value in enumerate(others, start=1):
        where, name = f"batch[{i}]", places.pop(0) if places else ""
        if name in known.required:
            if isinstance(first, Mapping):
                kwargs[name] = value
                written.append(f"{name}={where}")
            else:
                args.append(value)
                written.append(where)
        elif name or known.any_position:
            left.append(_left_out(where, name, value, known))
    return Call(tuple(args), kwargs, ", ".join(written), tuple(left))


def _left_out(where: str, name: str, value: Any, known: Takes) -> LeftOut:
    """Class labels belong to the parameter that is named so, not to that of their place."""
    own = next((key for key in LABEL_KEYS if key in known.keywords), None)
    label = is_label(value, name)
    if own is not None and is_class_per_sample(value) and (label or name.endswith("_ids")):
        return LeftOut(where, own, True)  # one number a sample is no token's id
    return LeftOut(where, name, label)


def _spreads(first: Any, others: list[Any], known: Takes) -> bool:
    """Is the first element, a tuple, two arguments or more? `((a, b), labels)` may be.

    Raises:
        TypeError: it might as well be one argument, and the next element another.
    """
    needed = [name for name in known.positional if name in known.required]
    if not isinstance(first, (tuple, list)) or not 2 <= len(first) == len(needed):
        return False
    rest = list(zip(others, needed[1:], strict=False))
    if len(others) + 1 >= len(needed) and not all(is_label(value, name) for value, name in rest):
        raise TypeError(
            "the batch can be read as model(*batch[0]) and as model(*batch); say which it is with "
            "forward=lambda model, batch: model(*batch[0])"
        )
    return True


def _refuse_samples(batch: Any, known: Takes, model: nn.Module) -> None:
    """Raises TypeError where a list holds single samples."""
    name, most = type(model).__name__, len(known.positional)
    if len(batch) > most and are_samples(batch):
        raise TypeError(
            f"the batch is a list of {len(batch)} single samples, more than {name} takes "
            f"arguments ({most}); stack them, with collate_fn=torch.utils.data.default_collate "
            "of the DataLoader or with forward=lambda model, batch: model(torch.stack(batch))"
        )
    if hold_samples(batch) and not _spreads(batch[0], batch[1:], known):
        raise TypeError(
            "the first element of the batch is a list of tensors, one a sample; stack them in the "
            "DataLoader's collate_fn, or say how they go into the model, with "
            "forward=lambda model, batch: model(batch[0])"
        )
    second = batch[1] if len(batch) > 1 else None
    number = isinstance(second, int)
    if isinstance(second, Tensor):
        number = second.dim() == 0 and not second.is_floating_point()
    if number and isinstance(batch[0], Tensor) and most < 2 and not known.any_position:
        raise TypeError(
            "the batch looks like one sample, since its label is a single number; give "
            "torch.utils.data.DataLoader(dataset, batch_size=64), or say what goes into the model, "
            "with forward=lambda model, batch: model(batch[0])"
        )


# mappings -----------------------------------------------------------------------------------------
def _by_name(batch: Mapping[Any, Any], known: Takes, written: str, model: nn.Module) -> Call:
    kwargs: dict[str, Any] = {}
    left: list[LeftOut] = []
    for key, value in ((str(key), value) for key, value in batch.items()):
        if key in known.required:
            kwargs[key] = value
        elif key in LABEL_KEYS:
            if key in known.keywords or known.any_keyword:
                decodes = "decoder_input_ids" in known.keywords
                left.append(LeftOut(f'"{key}"', key, is_label(value, key, decodes)))
        elif key in known.keywords or known.any_keyword:
            kwargs[key] = value
        elif is_class_per_sample(value) or not _has_tensor(value):
            pass  # beside the inputs, as names and numbers of samples are
        else:
            takes_ = ", ".join(known.positional) or "nothing"
            raise TypeError(
                f'{type(model).__name__} takes {takes_}, and no "{key}" of the batch; say what '
                f'goes in, such as forward=lambda model, batch: model(batch["{next(iter(batch))}"])'
            )
    return Call((), kwargs, written, tuple(left))


# what is no tensor --------------------------------------------------------------------------------
def _refuse_what_is_no_tensor(batch: Any, call: Call) -> None:
    """Raises TypeError where a call would hold no tensor, or arrays and images for tensors."""
    given = [*call.args, *call.kwargs.values()]
    without = [x for x in given if not _has_tensor(x)]
    none = len(without) == len(given)
    what = (
        next((said for x in without for said in _foreign(x)), None) if none or call.args else None
    )
    if what is None and not none:
        return
    if what is None and any(map(_is_text, given)):
        what = "the batch holds texts: make tensors of them with the model's tokenizer"
    raise TypeError(
        f"{what or f'cannot tell the samples in a batch of type {type(batch).__name__}'}; "
        "give batches of tensors, or say how they become a call with "
        "forward=lambda model, batch: model(...)"
    )


def _foreign(value: Any) -> Iterator[str]:
    package = type(value).__module__.partition(".")[0]
    if package == "numpy":
        yield "the batch holds numpy arrays: make tensors of them, torch.as_tensor(array)"
    elif package == "PIL":
        yield "the batch holds PIL images: make tensors of them, torchvision.transforms.ToTensor()"
    elif isinstance(value, (tuple, list)):
        for x in value:
            yield from _foreign(x)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, (tuple, list)) and any(map(_is_text, value))
    )


def _has_tensor(value: Any) -> bool:
    return any(True for _ in tensors(value))
