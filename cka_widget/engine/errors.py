"""What a run says when it cannot go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cka_widget.result.result import CKAResult


class CompareError(RuntimeError):
    """A run that failed; what it computed until then is in `result`.

    Attributes:
        result: what the finished batches gave, or None when no batch was finished.
        model: name of the model that failed, or None (the loader, for instance).
        layer: dotted name of the innermost module that failed, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        result: CKAResult | None = None,
        model: str | None = None,
        layer: str | None = None,
    ) -> None:
        super().__init__(message)
        self.result = result
        self.model = model
        self.layer = layer


class NoFeaturesError(ValueError):
    """A module's output gives no features for each sample."""


class LeftOutError(NoFeaturesError):
    """The output holds samples all the same, so that its layer may be missed in the result."""


class CKAWarning(UserWarning):
    """Something that would mislead the reader of a result."""


def message(error: BaseException) -> str:
    """What an error says; "" where it has no words, or its class fails to find them."""
    try:
        return str(error).strip()
    except Exception:
        return ""


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return next(iter(message(error).splitlines()), "")


def summary(error: BaseException) -> str:
    """An error's class and the first line of what it says, as far as it says anything."""
    return ": ".join(filter(None, (type(error).__name__, first_line(error))))
