"""Data beyond the explorer's own loader, for a run to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cka_widget.engine.data.streams import Stream
from cka_widget.engine.errors import summary
from cka_widget.widgets.look.format import plural


class MoreData:
    """One loader, which is added once a result, or a function that gives the next one each time.

    The same samples twice would make error bars small without making anything surer.

    Args:
        source: a loader; a function of nothing that gives a loader, or None when there are no
            more; None for no more data at all.
        models: names of the models.
        max_batches: batches that a run takes at most.

    Raises:
        TypeError: a source that is neither.
    """

    def __init__(self, source: Any, models: Sequence[str], max_batches: int | None) -> None:
        self._source = source
        self._samples = None
        if source is not None and not callable(source):
            self._samples = Stream(source, list(models), max_batches).total_samples
        self.left = source is not None

    def restart(self) -> None:
        """A new result begins: what was added to the one before is new to it."""
        self.left = self._source is not None

    def take(self) -> Any:
        """The next loader, or None when there are no more.

        Raises:
            ValueError: the function failed.
        """
        if not self.left:
            return None
        if not callable(self._source):
            self.left = False
            return self._source
        try:
            found = self._source()
        except Exception as error:  # whatever a reader's function can raise
            raise ValueError(f"more_data failed: {summary(error)}") from error
        self.left = found is not None
        return found

    @property
    def words(self) -> str:
        """What adding them does."""
        what = "more data" if self._samples is None else plural(self._samples, "more sample")
        return f"Go on with {what}: the same layers, smaller error bars"
