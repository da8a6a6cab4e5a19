"""Every notebook runs from top to bottom, and git holds none of its outputs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def executed(path: Path, folder: Path, more: str = "") -> nbformat.NotebookNode:
    """The notebook, and a cell `more` after it, with outputs; a cell's exception is raised here."""
    notebook = nbformat.read(path, as_version=4)
    if more:
        notebook.cells.append(nbformat.v4.new_code_cell(more, id="more"))
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode, cell_id: str, mime: str = "text/plain") -> str:
    """Text of a cell's outputs of one type."""
    (cell,) = [cell for cell in notebook.cells if cell["id"] == cell_id]
    return "\n".join(output.get("data", {}).get(mime, "") for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    quickstart = path.stem == "quickstart"
    notebook = executed(path, tmp_path, "len(explorer.result.to_html())" if quickstart else "")
    if quickstart:
        assert int(outputs(notebook, "more")) <= 300_000, "the exported page"
        assert "application/vnd.jupyter.widget-view+json" in str(notebook.cells)
        assert outputs(notebook, "explorer", "image/png"), "the run's picture, without a page"
        assert "'done'" in outputs(notebook, "wait")
        assert "block6" in outputs(notebook, "select")
        table = outputs(notebook, "particles").splitlines()
        assert len(table) >= 5, "four particles and a header"


def stored(path: Path) -> str:
    """What git holds of the file; outside a clone, the file itself."""
    name = f":{path.relative_to(ROOT).as_posix()}"
    try:
        done = subprocess.run(
            ["git", "show", name], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
        )
    except OSError:
        return path.read_text(encoding="utf-8")
    return path.read_text(encoding="utf-8") if done.returncode else done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.reads(stored(path), as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_there_are_notebooks() -> None:
    assert ROOT / "notebooks/quickstart.ipynb" in NOTEBOOKS
