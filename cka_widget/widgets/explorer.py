"""CKAExplorer: pickers, heatmap and drill-down around one run, joined by traits alone."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as widgets
import traitlets as t
from IPython.display import display

from cka_widget.engine.compare import Snapshot, iter_compare
from cka_widget.engine.data.streams import Stream
from cka_widget.engine.options import refuse_unknown
from cka_widget.result.export.page_data import View
from cka_widget.widgets.comparison.comparison import Comparison
from cka_widget.widgets.elements.export_menu import kinds
from cka_widget.widgets.explorer_traits import Traits
from cka_widget.widgets.explorer_views import Views
from cka_widget.widgets.notebook import static_picture
from cka_widget.widgets.notebook.cell_output import CellOutput, mimebundle
from cka_widget.widgets.notebook.notebook_cells import left_by, named
from cka_widget.widgets.notebook.widget_lock import LOCK, close_all, serialise
from cka_widget.widgets.presenter import Screen
from cka_widget.widgets.run.more_data import MoreData
from cka_widget.widgets.run.run_history import RunHistory
from cka_widget.widgets.run.runner import ENDED, RUNNING, Failure, Progress, Runner

log = logging.getLogger(__name__)

_OWN = ("height", "statistic", "theme", "more_data")
OPTIONS = [*list(inspect.signature(iter_compare).parameters)[2:], *_OWN]


class CKAExplorer(Traits):
    """Compare two models, or two ensembles, layer by layer; it displays itself.

    Traits to read, set, observe and link, told in `Traits`: selection, hover, layers, pair,
    statistic, measure, theme, stop_at_stderr; to read and observe: state, progress, result.

    Args:
        models: name -> module, or a sequence of modules for an ensemble. One entry is compared
            with itself; of more than two, any two at a time.
        loader: batches, or name -> loader; see `cka_widget.compare`.
        layers: which layers are ticked at first; None ticks every distinct output.
        forward: how a batch becomes a call, `forward(model, batch)`, or a mapping by model name.
        height: height in pixels; None grows with the content.
        statistic: what is shown at first: "mean", "spread" or "stderr". `metric=` is its old name.
        theme: "auto", "light" or "dark".
        stop_at_stderr: call the result done when no cell's standard error under the
            measure that is shown is above this.
        more_data: samples beyond those of `loader`, for the button "Add data" of a run that has
            ended: a loader, or a function that gives another one each time and None at the end.
            Without it there is no such button, since the same samples twice tell nothing new.
        **options: the other options of `cka_widget.compare` (measures, reduce, device, ...).
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        loader: Any,
        *,
        layers: Any = None,
        forward: Any = None,
        height: int | None = None,
        statistic: str = "mean",
        theme: str = "auto",
        stop_at_stderr: float | None = None,
        more_data: Any = None,
        **options: Any,
    ) -> None:
        if "metric" in options:
            Traits.metric.warn(3)
            statistic = options.pop("metric")
        refuse_unknown(options, OPTIONS)
        self._lock = LOCK
        self._study = Comparison(models, loader, layers, forward, options)
        self._options = {"forward": forward, **options}
        self._more = MoreData(more_data, self._study.names, options.get("max_batches"))
        self._runner = Runner(self._publish, self._enter_state)
        self._status = Progress()
        self._known = RunHistory()
        self._output = CellOutput()
        trees = self._study.trees
        offered = kinds(self._drawing, lambda: self.result, self._shown, trees)
        self._views = Views(
            trees,
            self._study.particles,
            self._study.measures,
            offered,
            theme,
            self._lock,
            self._output.style,
            threaded=not _on_colab(),
        )
        self._screen = Screen(self._views, self._study)
        names = self._study.names
        super().__init__(
            self._views.children,
            layers=self._study.start,
            pair=(names[0], names[min(1, len(names) - 1)]),
            statistic=statistic,
            measure=next(iter(self._study.measures)),
            theme=theme,
            stop_at_stderr=stop_at_stderr,
        )
        self.add_class("cka-explorer")
        if height:
            self.layout.height = f"{height}px"
            self.add_class("cka-fixed")
        self._join()
        self._enter_state()
        for widget in self._views.everything():
            serialise(widget, self._lock)

    @property
    def heatmap(self) -> widgets.DOMWidget:
        """The heatmap; it stands alone as a widget of its own too."""
        self._require_open()
        return self._views.heatmap

    @property
    def pickers(self) -> dict[str, widgets.DOMWidget]:
        """Model name -> its layer picker; each stands alone too."""
        self._require_open()
        return self._views.pickers

    @property
    def failure(self) -> Failure | None:
        """Why the last run failed: a sentence and the traceback; None if it did not."""
        return self._runner.failure

    # the run ----------------------------------------------------------------------------------
    def run(self, block: bool | None = None) -> None:
        """Stream the data once through every model; what the Run button does.

        Args:
            block: stay here until the end; None does so where updates from another thread do
                not reach the page (Colab).

        Raises:
            ValueError: a model on screen has no layer ticked.
            RuntimeError: a run is under way, or the explorer was closed.
        """
        self._require_open()
        for name in self.pair:
            if not self.layers[name]:
                raise ValueError(f'tick at least one layer of "{name}" first')
        asked = self._study.request(self.layers)
        adds = self._study.adds(self.layers, self._known)
        self._refuse_a_second_run()
        self._more.restart()
        self._start(self._study.loader, asked, block, partial(self._known.begin, asked, adds))

    def add_data(self, loader: Any = None, block: bool | None = None) -> None:
        """Go on from the present result with more data, the layers of its run.

        Args:
            loader: new samples; None takes the next of `more_data`, as the button does.
            block: as of `run`.

        Raises:
            ValueError: there is no result yet, there are no more data, or `groups` are those of the
                first loader's samples.
            RuntimeError: a run is under way, or the explorer was closed.
        """
        self._require_open()
        latest = self._known.latest
        if latest is None:
            raise ValueError("there is no result to add to: call run() first")
        self._refuse_a_second_run()
        groups = self._options.get("groups")
        if groups is not None and not callable(groups):
            raise ValueError("to add data, give groups= as a function of the batch")
        loader = self._more.take() if loader is None else loader
        if loader is None:
            raise ValueError("there are no more data")
        self._start(loader, latest.asked, block, self._known.go_on)

    def _start(self, loader: Any, layers: Any, block: bool | None, begin: Any) -> None:
        models = {name: self._study.models[name] for name in layers}
        stream = Stream(_of(models, loader), list(models), self._options.get("max_batches"))
        options = {name: _of(models, value) for name, value in self._options.items()}
        self._status = Progress()

        def iterate() -> Iterator[Snapshot]:
            weights = self._study.weights()
            with self._lock:
                begin(weights)
                self._draw()  # from now on it is known which layers the run brings
            # When to stop is looked up as it goes on: the goal may change meanwhile.
            return self._known.addable(iter_compare(models, stream, layers=layers, **options))

        block = _on_colab() if block is None else block
        # The loader starts in this thread. ipykernel 7.4 calls a button's callback in the main one,
        # between cells; 7.0 to 7.3 in a subshell's, where workers that are forked while a cell
        # draws random numbers may hang, as in any other thread: Cancel ends them.
        self._runner.start(iterate, stream=stream, block=block)

    def _refuse_a_second_run(self) -> None:
        if self._runner.state in RUNNING:
            raise RuntimeError("a run is under way: wait for it, or cancel it first")

    def pause(self) -> None:
        """Stop before the next batch; nothing is lost."""
        self._runner.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        self._runner.resume()

    def cancel(self) -> None:
        """End before the next batch; the partial result stays."""
        self._runner.cancel()

    def finish(self) -> None:
        """End before the next batch as done: the result is good enough."""
        self._runner.finish()

    def wait(self, timeout: float | None = None) -> str:
        """Block until the run has ended, for scripts and nbconvert.

        Args:
            timeout: seconds after which to come back anyway.

        Returns:
            The state then.
        """
        self._runner.wait(timeout)
        return self.state

    def _publish(self, progress: Progress, result: Any) -> None:
        with self._lock:
            if self._closed:
                return
            self._status = replace(progress, before=self._known.before)
            self._tell("progress", progress.fraction or 0.0)
            if result is not None:
                result = self._known.take(result, progress.rate)
                self._tell("result", result)
                self._draw()
            self._show_status()
            goal = self.stop_at_stderr
            if goal and result is not None and 0 <= result.of(self.measure).worst_stderr() <= goal:
                self._runner.finish()

    def _enter_state(self) -> None:
        with self._lock:
            state = self._runner.state
            if self._closed:
                self._tell("state", state)
                if state in ENDED:
                    self._let_go()
                return
            self._views.heatmap.settled = state in ENDED
            if state == "done":
                self._tell("progress", 1.0)
            self._views.line.speak(state, self.failure)
            self._draw()
            self._show_status()
            self._tell("state", state)  # the last: who observes it may start the next run
        if state in ENDED and self._known:
            self._output.leave(self._png, repr(self))

    def _tell(self, name: str, value: Any) -> None:
        """Set a trait that others read; an observer of theirs that fails does not end the run."""
        try:
            self.set_trait(name, value)
        except Exception:
            log.exception('an observer of the explorer\'s "%s" failed', name)

    def close(self) -> None:
        """End the run, if one is under way, and take the explorer off the page.

        It lets go of models, data and widgets; `result` and the other traits can still be read.
        """
        if self._closed or not hasattr(self, "_views"):
            super().close()
            return
        self.cancel()
        with self._lock:
            self._closed = True
            close_all([*self._views.everything(), self])
        if self._runner.state not in RUNNING:
            self._let_go()

    def _let_go(self) -> None:
        """The result stays, for as long as somebody holds the explorer, and nothing else."""
        for name in ("_study", "_options", "_more", "_known", "_output", "_views", "_screen"):
            self.__dict__.pop(name, None)

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError(
                "this explorer was closed, or its cell ran again: make a new one; what it has "
                "computed is in its result"
            )

    # drawing: always under the lock -------------------------------------------------------------
    def _draw(self) -> None:
        self._screen.draw(
            self._known,
            self.pair,
            self.layers,
            self.statistic,
            self.measure,
            self._runner.state,
            self.selection,
        )

    def _show_status(self) -> None:
        line, (row, col) = self._views.line, self.pair
        worst = self._known.worst_error(row, col, self.measure)
        state, setting = self._runner.state, self._study.setting(self._status.device)
        line.show(state, self._status, worst, setting)
        line.note(getattr(self.result, "warnings", ()), self.failure)
        self._views.header.show_state(state, self.result is not None, self._more)
        self._views.pulse.tick(state)

    # joining the views by traits -----------------------------------------------------------------
    def _join(self) -> None:
        views, bar, header = self._views, self._views.toolbar, self._views.header
        for button in (header.run, views.plan_run):
            button.on_click(lambda _: self._clicked(self.run))
        header.more.on_click(lambda _: self._clicked(self.add_data))
        header.pause.on_click(lambda _: self._pause_clicked())
        header.cancel.on_click(lambda _: self.cancel())
        header.enough.on_click(lambda _: self.finish())
        header.export.on_click(lambda _: views.menu.toggle())
        header.offer_goal(self.stop_at_stderr)
        t.link((self, "statistic"), (bar.statistic, "value"))
        t.link((self, "measure"), (bar.measure, "value"))
        # The list's values are numbers: 0 stands for None.
        goal = (self, "stop_at_stderr"), (header.goal, "value")
        t.link(*goal, transform=(lambda error: error or 0.0, lambda error: error or None))
        for view in (views.heatmap, views.drill.matrix, *views.pickers.values()):
            t.dlink((self, "theme"), (view, "theme"))
        for name, picker in views.pickers.items():
            picker.checked = list(self.layers[name])
            picker.observe(partial(self._picked, name), "checked")
        bar.pair.observe(lambda change: self._show(change["new"]), "value")
        for side in (bar.rows, bar.cols):
            side.observe(lambda _: self._show(bar.chosen_pair), "value")
        bar.range.observe(lambda _: self._redraw(), "value")
        views.heatmap.observe(self._pinned, "selected")
        views.heatmap.observe(self._hovered, "hovered")
        self._views.toolbar.show_pair(self.pair)

    def _clicked(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except (TypeError, ValueError, RuntimeError) as error:
            with self._lock:
                self._show_status()
                self._views.line.note([str(error)])

    def _pause_clicked(self) -> None:
        (self.resume if self._runner.state == "paused" else self.pause)()

    def _show(self, pair: tuple[str, str] | None) -> None:
        if pair is not None:  # no button is pressed for a pair that has none
            self.pair = pair

    def _redraw(self) -> None:
        with self._lock:
            self._draw()

    def _picked(self, name: str, change: Any) -> None:
        self.layers = {**self.layers, name: list(change["new"])}

    def _pinned(self, change: Any) -> None:
        if not self._screen.placing:
            self.selection = self._screen.cell_at(change["new"])

    def _hovered(self, change: Any) -> None:
        self.hover = self._screen.cell_at(change["new"])

    @t.observe("selection")
    def _move_selection(self, change: Any) -> None:
        if self._closed:
            return
        with self._lock:
            cell = change["new"]
            models = tuple(key.model for key in cell) if cell else self.pair
            if models != self.pair and self.result is not None:
                self.pair = models
            self._screen.pin(cell)
            self._screen.draw_cell(self._known, self.pair, self.measure, cell)

    @t.observe("hover")
    def _point(self, change: Any) -> None:
        if self._closed:
            return
        with self._lock:
            self._views.heatmap.hovered = self._screen.place(change["new"])

    @t.observe("layers", "pair", "statistic", "measure")
    def _choose(self, change: Any) -> None:
        if self._closed or not hasattr(self, "_views") or not self.pair[0]:
            return
        with self._lock:
            for name, names in self.layers.items():
                self._views.pickers[name].checked = list(names)
            self._views.toolbar.show_pair(self.pair)
            self._draw()
            self._show_status()

    # without a front end -------------------------------------------------------------------------
    def __repr__(self) -> str:
        row, col = self.pair
        text = f"CKAExplorer: {row} against {col}, {'closed' if self._closed else self.state}"
        return text if self.result is None else f"{text}, {self.result.samples:,} samples"

    def _drawing(self) -> Any:
        with self._lock:
            draw = self._screen.picture(self._known, self.pair)
        return draw()

    def _shown(self) -> tuple[dict[str, list[str]], View, str]:
        with self._lock:
            layers = self._screen.layers(self._known, self.layers)
            return layers, View(self.pair, self.statistic, self.selection), self.measure

    def _png(self) -> bytes:
        return static_picture.png(self._drawing())

    def _ipython_display_(self, **kwargs: Any) -> None:
        if self._closed:
            display({"text/plain": repr(self)}, raw=True)
            return
        self._output.show(self._repr_mimebundle_())
        for explorer in left_by(self):
            # Nobody sees it; who still has it in a variable may show it again.
            (explorer.cancel if named(explorer) else explorer.close)()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return mimebundle(self.model_id, repr(self), self._png() if self._known else None)


def _of(models: Mapping[str, Any], value: Any) -> Any:
    """The part of a mapping by model name that is for these models; other values as they are."""
    if not isinstance(value, Mapping):
        return value
    return {name: value[name] for name in models if name in value}


def _on_colab() -> bool:
    return "google.colab" in sys.modules
