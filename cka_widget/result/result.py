"""What a run gives: its scores, and what is done with them. numpy and pandas only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cka_widget.result import combine, storage
from cka_widget.result.scores import Scores

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, repr=False)
class CKAResult(Scores):
    """What `compare` gives: `Scores`, that can be drawn, merged and saved."""

    def to_dict(self, row_model: str | None = None, col_model: str | None = None) -> dict[str, Any]:
        """One matrix under the keys of torch_cka's `export()`; "CKA" is an array (rows, columns).

        Without names the first model's layers are the rows, the last one's the columns.
        """
        names = (row_model or self.models[0], col_model or self.models[-1])
        data = self.provenance.get("datasets") or {}
        found: dict[str, Any] = {f"model{k}_name": name for k, name in enumerate(names, start=1)}
        found["CKA"] = self.matrix(*names).to_numpy()
        found |= {f"model{k}_layers": self.layers(name) for k, name in enumerate(names, start=1)}
        return found | {f"dataset{k}_name": data.get(n) for k, n in enumerate(names, start=1)}

    def plot(self, row_model: str | None = None, col_model: str | None = None, **how: Any) -> Any:
        """Draw one matrix with matplotlib; returns the axes. Options: see `plotting.draw`."""
        from cka_widget.result.export.plotting import plot

        return plot(self, row_model, col_model, **how)

    def to_html(self, path: Any = None, **how: Any) -> str:
        """The interactive page in one file, without kernel or network: see `page.to_html`."""
        from cka_widget.result.export.page import to_html

        return to_html(self, path, **how)

    def merge(self, other: Self) -> Self:
        """The same layers over more data; a new result, see `combine.merge`.

        Args:
            other: of the same models, layers and measures, over other samples.

        Raises:
            ValueError: the layers, particles, measures or batch weights differ.
        """
        return combine.merge(self, other)

    def save(self, path: Any) -> None:
        """Write one safetensors file, sums included; `cka_widget.load` reads it.

        Args:
            path: of the file, which is replaced where it exists.

        Raises:
            FileNotFoundError: the directory does not exist.
            OSError: the file cannot be written.
        """
        storage.save(self, path)


def load(path: Any) -> CKAResult:
    """Read what `CKAResult.save` wrote; torch need not be installed.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, damaged, or written by a newer version; the message says which.
    """
    return CKAResult(**storage.read(path))
