"""The static picture."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import zoo
from checks import run
from matplotlib import pyplot as plt

from cka_widget.engine.measures.mutual_knn import MutualKNN
from cka_widget.result.export.brackets import Bracket, take_apart
from cka_widget.result.export.plotting import draw, thinned
from cka_widget.result.result import CKAResult

KEYS = ["CKA", "model1_layers", "model2_layers", "model1_name", "model2_name"]


@pytest.fixture(scope="module")
def result() -> CKAResult:
    models = {"A": [zoo.mlp(0), zoo.mlp(1)], "B $x^2$": zoo.mlp(2, depth=3)}
    return run(models, zoo.vectors())


@pytest.fixture(autouse=True)
def _no_figure_is_left() -> Iterator[None]:
    yield
    plt.close("all")


def test_rows_are_the_first_model_and_columns_the_last(result: CKAResult) -> None:
    ax = result.plot()
    assert ax.images[0].get_array().shape == (5, 7)
    np.testing.assert_allclose(ax.images[0].get_array(), result.matrix("A", "B $x^2$"))
    assert ax.get_ylabel() == "A (2 particles)"
    assert ax.get_xlabel() == r"B \$x^2\$"
    assert [t.get_text() for t in ax.get_yticklabels()] == result.layers("A")
    assert [t.get_text() for t in ax.get_xticklabels()] == result.layers("B $x^2$")
    assert ax.images[0].get_cmap().name == "magma"
    assert ax.images[0].get_clim() == (0.0, 1.0)


def test_chosen_models_and_axes(result: CKAResult) -> None:
    _, (left, right) = plt.subplots(1, 2)
    assert result.plot("B $x^2$", "A", ax=right, colorbar=False) is right
    assert right.images[0].get_array().shape == (7, 5)
    assert not left.images
    assert len(right.figure.axes) == 2


def test_the_colour_bar_says_which_measure_and_what_chance_gives() -> None:
    knn = MutualKNN(k=3)
    result = run({"A": zoo.mlp(0), "B": zoo.mlp(2)}, zoo.vectors(), measures=["cka", "rsa", knn])
    for name, facts in ((name, result.of(name).measure) for name in result.measures):
        ax = result.plot(measure=name)
        np.testing.assert_allclose(ax.images[0].get_array(), result.matrix("A", "B", measure=name))
        bar = ax.images[0].colorbar
        told = " (by chance .2)" if name == "mutual_knn" else ""
        assert bar.ax.get_ylabel() == facts.title + told
        marks = [line.get_ydata()[0] for line in bar.ax.lines]
        assert marks == ([facts.chance] if told else [])
    assert result.of("mutual_knn").measure.chance > 0, "a measure that has no chance shows none"
    assert result.plot(value_name="similarity").images[0].colorbar.ax.get_ylabel() == "similarity"
    with pytest.raises(KeyError, match="no measure"):
        result.plot(measure="procrustes")


def test_a_title_is_no_formula() -> None:
    draw(np.eye(2), list("ab"), list("ab"), value_name="$\\foo").figure.canvas.draw()


@pytest.mark.parametrize(("origin", "first_on_top"), [("upper", True), ("lower", False)])
def test_origin(origin: str, first_on_top: bool) -> None:
    ax = draw(np.eye(3), list("abc"), list("abc"), origin=origin)
    low, high = ax.get_ylim()
    assert bool(low > high) is first_on_top


def test_undefined_cells_are_hatched() -> None:
    values = np.array([[0.5, np.nan], [np.nan, 1.0]])
    ax = draw(values, list("ab"), list("ab"), annotate=True)
    assert ax.patch.get_hatch()
    assert ax.images[0].get_array().mask.tolist() == [[False, True], [True, False]]
    assert sorted(t.get_text() for t in ax.texts) == ["0.50", "1.00"]
    pixels = _pixels(ax)
    assert len(np.unique(pixels[0, 1].reshape(-1, 4), axis=0)) > 1  # lines, not one colour
    assert len(np.unique(pixels[0, 0][:8, :8].reshape(-1, 4), axis=0)) == 1


def test_a_matrix_without_any_value() -> None:
    ax = draw(np.full((2, 3), np.nan), list("ab"), list("abc"))
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.0, 1.0], "neither"), ([-0.1, 1], "min"), ([0, 1.1], "max"), ([-1, 2], "both")],
)
def test_values_outside_the_colours_show_at_the_bar(values: list[float], ends: str) -> None:
    ax = draw([values], ["r"], ["a", "b"])
    assert ax.images[0].colorbar.extend == ends


def test_annotations_are_legible() -> None:
    ax = draw([[0.0, 1.0]], ["r"], ["a", "b"], annotate=True)
    assert [t.get_color() for t in ax.texts] == ["w", "k"]


@pytest.mark.parametrize(("count", "inches"), [(1, 0.1), (10, 2.6), (115, 9.0), (2000, 9.0)])
def test_labels_are_thinned_evenly(count: int, inches: float) -> None:
    kept = thinned(count, inches)
    assert kept[0] == 0
    assert len(set(np.diff(kept))) <= 1
    assert len(kept) * 8 / 72 <= max(inches, 8 / 72)


def test_labels_of_a_large_matrix_do_not_overlap() -> None:
    names = [f"layer{i // 100}.{i % 100}.convolution_of_a_rather_long_name" for i in range(300)]
    ax = draw(np.random.default_rng(0).random((300, 300)), names, names)
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.get_yticklabels()]
    boxes.sort(key=lambda box: box.y0)
    assert all(a.y1 <= b.y0 + 1 for a, b in pairwise(boxes))
    assert all(t.get_text().startswith("…") for t in ax.get_yticklabels())


@pytest.mark.parametrize(
    ("labels", "stem", "brackets", "texts"),
    [
        (["a"], "", [], ["a"]),
        (["a", "b"], "", [], ["a", "b"]),
        (["net.0.conv"], "", [], ["net.0.conv"]),
        (["stem", "a.0", "a.1", "a", "b.0"], "", [("a", 1, 3)], ["stem", "0", "1", "a", "b.0"]),
        (["m.x.0", "m.x.1", "m.y"], "m", [("x", 0, 1)], ["0", "1", "y"]),
        (["e.layer.0.a", "e.layer.1.a", "head"], "", [("e.layer", 0, 1)], ["0.a", "1.a", "head"]),
        (["a.0", "b", "a.1"], "", [], ["a.0", "b", "a.1"]),
    ],
)
def test_names_are_taken_apart_at_their_modules(
    labels: list[str], stem: str, brackets: list[Any], texts: list[str]
) -> None:
    assert take_apart(labels) == (stem, [Bracket(*one) for one in brackets], texts)


def test_brackets_stand_between_labels_and_name_of_an_axis() -> None:
    rows = ["e.stem", *(f"e.block{i}.{j}" for i in (0, 1) for j in range(4))]
    ax = draw(np.eye(9), rows, list("abcdefghi"), "rows", "cols", title="t")
    ax.figure.canvas.draw()
    assert ax.get_ylabel() == "rows · e"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["stem", *"01230123"]
    drawn = [t for t in ax.texts if t.get_text().startswith("block")]
    assert [t.get_text() for t in drawn] == ["block0", "block1"]
    labels = min(t.get_window_extent().x0 for t in ax.get_yticklabels())
    for text, line in zip(drawn, ax.lines, strict=True):
        assert text.get_window_extent().x1 < line.get_window_extent().x0 < labels
        assert ax.yaxis.label.get_window_extent().x1 < text.get_window_extent().x0
    plain = draw(np.eye(9), rows, rows, brackets=False)
    assert not plain.lines
    assert plain.get_yticklabels()[1].get_text() == "e.block0.0"


@pytest.mark.parametrize("name", [r"cost $\foo", r"$\frac{ $", "$$", r"\$x$", "a_$b^$"])
def test_no_name_is_read_as_a_formula(name: str) -> None:
    labels = [f"{name}.{name}", f"{name}.b", name]
    draw(np.eye(3), labels, labels, name, name, title=name).figure.canvas.draw()


def test_a_picture_can_be_saved(result: CKAResult, tmp_path: Any) -> None:
    for kind in ("png", "svg", "pdf"):
        result.plot(title="10$ & more").figure.savefig(tmp_path / f"cka.{kind}")
        assert (tmp_path / f"cka.{kind}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [({"row_labels": ["a"]}, "do not fit"), ({"origin": "left"}, "origin='left'")],
)
def test_what_cannot_be_drawn(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"row_labels": ["a", "b"], "col_labels": ["c"], **options}
    with pytest.raises(ValueError, match=message):
        draw(np.zeros((2, 1)), **given)


def test_drawing_a_saved_result_needs_no_torch(result: CKAResult, tmp_path: Any) -> None:
    result.save(tmp_path / "run")
    script = f"""
import sys
sys.modules["torch"] = None
import cka_widget as cw
cw.load({str(tmp_path / "run")!r}).plot().figure.savefig({str(tmp_path / "run.png")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "run.png").exists()


def test_to_dict_has_the_keys_of_torch_cka(result: CKAResult) -> None:
    found = result.to_dict()
    assert sorted(found) == sorted([*KEYS, "dataset1_name", "dataset2_name"])
    np.testing.assert_array_equal(found["CKA"], result.matrix("A", "B $x^2$"))
    assert found["model1_layers"] == result.layers("A")
    assert result.to_dict("B $x^2$", "A")["model1_name"] == "B $x^2$"


def test_the_default_style_is_left_alone(result: CKAResult) -> None:
    before = dict(mpl.rcParams)
    result.plot()
    assert dict(mpl.rcParams) == before


def _pixels(ax: Any) -> np.ndarray:
    """Each cell's inner pixels, (rows, columns, height, width, 4)."""
    ax.figure.canvas.draw()
    picture = np.asarray(ax.figure.canvas.buffer_rgba())[::-1]
    box = ax.get_window_extent()
    size = int(box.width // 2) - 20
    x, y = int(box.x0) + 10, int(box.y0) + 10 + int(box.height // 2)
    step = int(box.width // 2)
    return np.array(
        [
            [
                picture[y - i * step : y - i * step + size, x + j * step : x + j * step + size]
                for j in (0, 1)
            ]
            for i in (0, 1)
        ]
    )
