"""Which widgets a cell shows: those of earlier executions are left."""

from __future__ import annotations

import gc

from cka_widget.widgets.notebook.notebook_cells import Cells, left_by


class OnScreen:
    pass


def test_executed_again_a_cell_leaves_what_it_showed() -> None:
    cells, old, new = Cells(), OnScreen(), OnScreen()
    assert cells.show(old, "c1", 1) == []
    assert cells.show(new, "c1", 2) == [old]
    assert cells.show(new, "c1", 3) == [], "shown again"


def test_one_execution_may_show_several() -> None:
    cells, first, second, third = Cells(), OnScreen(), OnScreen(), OnScreen()
    assert cells.show(first, "c1", 1) == cells.show(second, "c1", 1) == []
    left = cells.show(third, "c1", 2)
    assert {id(one) for one in left} == {id(first), id(second)}


def test_what_another_cell_shows_is_kept() -> None:
    cells, old, new = Cells(), OnScreen(), OnScreen()
    cells.show(old, "c1", 1)
    cells.show(old, "c2", 2)
    assert cells.show(new, "c1", 3) == []
    assert cells.show(new, "c2", 4) == [old]


def test_nothing_is_kept_alive() -> None:
    cells, old = Cells(), OnScreen()
    cells.show(old, "c1", 1)
    del old
    gc.collect()
    assert cells.show(OnScreen(), "c1", 2) == []


def test_without_a_notebook_no_cell_is_known() -> None:
    assert left_by(OnScreen()) == left_by(OnScreen()) == []
