import os
import signal
import threading
import time
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from cka_widget.widgets.run.runner import Runner
from cka_widget.widgets.run.throttle import Coalescer


class Source:
    """A generator of snapshots whose result may only be asked for while it is suspended."""

    def __init__(self, batches=5, step=0.0, fail_at=None, error=None):
        self.batches, self.step, self.fail_at, self.error = batches, step, fail_at, error
        self.made = 0
        self.asked = []  # results that were asked for: of those batches that a view had time for
        self.closed = False
        self.suspended = False

    def __call__(self):
        try:
            for batch in range(1, self.batches + 1):
                time.sleep(self.step)
                if batch == self.fail_at:
                    raise self.error
                self.made = batch
                self.suspended = True
                yield self.snapshot(batch, False)
                self.suspended = False
            self.suspended = True
            yield self.snapshot(self.batches, True)
            self.suspended = False
        finally:
            self.closed = True

    def snapshot(self, batch, done):
        source = self

        class Snapshot(SimpleNamespace):
            @property
            def result(self):
                assert source.suspended, "the result was asked for while the generator ran"
                source.asked.append(f"result of {self.batches}")
                return source.asked[-1]

        return Snapshot(
            samples=batch * 10,
            total_samples=self.batches * 10,
            batches=batch,
            total_batches=self.batches,
            done=done,
            device="cpu",
        )


class Log:
    def __init__(self, interval=0.0, cost=0.0):
        self.published, self.states, self.cost = [], [], cost
        self.runner = Runner(self.publish, self.note, interval)

    def note(self):
        self.states.append(self.runner.state)

    def publish(self, progress, result):
        time.sleep(self.cost)
        self.published.append((progress, result))


def until(condition, timeout=5.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@pytest.mark.parametrize("block", [False, True])
def test_a_run_ends_done_with_the_last_result_published(block):
    log, source = Log(), Source()
    log.runner.start(source, block=block)
    assert log.runner.wait(5)
    assert log.states == ["running", "done"]
    assert log.published[-1][1] == "result of 5"
    assert log.published[-1][0].fraction == 1.0
    assert source.closed


def test_many_batches_make_few_publications_and_the_last_is_never_lost():
    log = Log(interval=0.05)
    log.runner.start(Source(batches=400, step=0.001))
    assert log.runner.wait(10)
    seconds = log.published[-1][0].seconds
    assert len(log.published) <= seconds / 0.05 + 3
    assert log.published[-1][1] == "result of 400"


def test_a_slow_view_does_not_hold_up_the_run():
    log = Log(cost=0.05)
    log.runner.start(Source(batches=100, step=0.001))
    assert log.runner.wait(10)
    assert len(log.published) < 30


def test_nothing_lags_behind_where_the_loader_waits_after_a_burst():
    """Batches drawn ahead come at once, then none for long: what they gave must be on screen."""
    burst, gate = Source(batches=9), threading.Event()

    def iterate():
        for snapshot in burst():
            if snapshot.batches == 7:
                gate.wait()
            # Long beside what a result costs, short beside the time between publications.
            time.sleep(0.005)
            yield snapshot

    log = Log(interval=0.2)
    log.runner.start(iterate)
    try:
        until(lambda: log.published and log.published[-1][0].batches == 6)
        assert log.published[-1][1] == "result of 6"
    finally:
        gate.set()
    log.runner.wait(5)
    assert log.published[-1][1] == "result of 9"


def test_pause_stops_within_one_batch_and_resume_goes_on():
    log, source = Log(), Source(batches=50, step=0.005)
    log.runner.start(source)
    until(lambda: source.made >= 3)
    log.runner.pause()
    at = source.made
    assert log.runner.state == "paused"
    time.sleep(0.1)
    assert source.made <= at + 1
    shown = log.published[-1][1]
    assert shown == f"result of {source.made}"
    log.runner.resume()
    assert log.runner.wait(5)
    assert log.states == ["running", "paused", "running", "done"]
    assert log.published[-1][0].seconds < 50 * 0.005 + 0.3, "a pause is no time at work"


@pytest.mark.parametrize("paused", [False, True])
def test_cancel_stops_within_one_batch_and_keeps_the_partial_result(paused):
    log, source = Log(), Source(batches=1000, step=0.005)
    log.runner.start(source)
    until(lambda: source.made >= 3)
    if paused:
        log.runner.pause()
        time.sleep(0.03)
    at = source.made
    log.runner.cancel()
    assert log.runner.wait(5)
    assert source.made <= at + 1
    assert source.closed
    assert log.runner.state == "cancelled"
    assert log.published[-1][1] == f"result of {source.made}"


def test_finish_ends_as_done():
    log, source = Log(), Source(batches=1000, step=0.005)
    log.runner.start(source)
    until(lambda: source.made >= 2)
    log.runner.finish()
    assert log.runner.wait(5)
    assert log.runner.state == "done"
    assert source.made < 1000


def test_a_failure_is_one_sentence_with_the_traceback_apart_and_the_partial_kept():
    error = RuntimeError("layer1.0 got 3 channels,\n  wanted 1")
    error.result, error.model, error.layer = "partial", "A", "layer1.0"
    log = Log()
    log.runner.start(Source(fail_at=4, error=error))
    assert log.runner.wait(5)
    failure = log.runner.failure
    assert log.runner.state == "failed"
    assert failure.sentence == "layer1.0 got 3 channels, wanted 1"
    assert "Traceback" in failure.traceback
    assert (failure.model, failure.layer) == ("A", "layer1.0")
    assert log.published[-1][1] == "partial"


def test_an_error_of_another_kind_keeps_the_last_result_that_was_asked_for():
    log, source = Log(), Source(step=0.01, fail_at=4, error=KeyError("label"))
    log.runner.start(source)
    assert log.runner.wait(5)
    assert log.runner.failure.sentence == "KeyError: 'label'"
    assert log.published[-1][0].batches == 3
    assert log.published[-1][1] == source.asked[-1]


def test_a_failure_before_the_first_batch_is_told_too():
    log = Log()

    def iterate():
        raise ValueError("the loader is empty")

    log.runner.start(iterate)
    assert log.runner.wait(5)
    assert log.runner.state == "failed"
    assert log.published[-1][1] is None


def test_ctrl_c_in_a_blocking_run_keeps_the_partial_result_and_goes_through():
    log, source = Log(), Source(step=0.01, fail_at=3, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        log.runner.start(source, block=True)
    assert log.runner.state == "cancelled"
    assert log.published[-1][0].batches == 2
    assert log.published[-1][1] == source.asked[-1]


def test_a_second_start_is_refused_while_one_runs_and_welcome_afterwards():
    log = Log()
    log.runner.start(Source(batches=20, step=0.01))
    with pytest.raises(RuntimeError, match="under way"):
        log.runner.start(Source())
    log.runner.cancel()
    log.runner.wait(5)
    log.runner.start(Source())
    assert log.runner.wait(5)
    assert log.runner.state == "done"


def test_calls_out_of_turn_do_nothing():
    log = Log()
    for act in (log.runner.pause, log.runner.resume, log.runner.cancel, log.runner.finish):
        act()
    assert log.runner.state == "idle"
    assert log.runner.wait(0.01)
    assert log.states == []


def test_a_view_that_raises_does_not_stop_the_run(caplog):
    def publish(progress, result):
        raise ValueError("broken view")

    runner = Runner(publish, lambda: None, 0.0)
    runner.start(Source())
    assert runner.wait(5)
    assert runner.state == "done"
    assert "could not show" in caplog.text


@pytest.mark.parametrize("grad", [True, False])
def test_the_worker_has_the_settings_of_the_thread_that_started_it(grad):
    seen = {}
    threads = torch.get_num_threads()

    def iterate():
        seen["grad"] = torch.is_grad_enabled()
        seen["threads"] = torch.get_num_threads()
        seen["autocast"] = torch.empty(2, 2) @ torch.empty(2, 2)
        seen["thread"] = threading.current_thread()
        yield from Source(batches=1)()

    log = Log()
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        log.runner.start(iterate)
    assert log.runner.wait(5)
    assert log.runner.failure is None
    assert seen["grad"] is grad
    assert seen["threads"] == threads
    assert seen["autocast"].dtype == torch.bfloat16
    assert seen["thread"] is not threading.main_thread()
    assert seen["thread"].daemon


def test_random_ends_never_lose_the_last_state():
    for trial in range(30):
        log, source = Log(), Source(batches=30, step=0.001)
        log.runner.start(source)
        time.sleep(0.001 * trial)
        log.runner.pause()
        if trial % 3 == 0:
            log.runner.resume()
        log.runner.cancel()
        assert log.runner.wait(5)
        assert log.runner.state in ("cancelled", "done")
        assert source.closed
        assert log.published[-1][1] == f"result of {max(source.made, 1)}"


def test_the_newest_value_wins():
    written = []
    buffer = Coalescer(written.append, interval=0.2)
    for value in range(100):
        buffer.put(value)
    time.sleep(0.1)
    buffer.close("last")
    assert written[-1] == "last"
    assert len(written) <= 3


def test_a_run_whose_beginning_could_not_be_told_comes_to_its_end():
    calls = []

    def changed():
        calls.append(runner.state)
        if len(calls) == 1:
            raise ValueError("a view that cannot be drawn")

    runner = Runner(lambda *_: None, changed)
    with pytest.raises(ValueError, match="cannot be drawn"):
        runner.start(lambda: iter(()))
    assert runner.wait(10)
    assert calls == ["running", "done"]


def test_a_second_ctrl_c_does_not_cut_the_telling_of_the_end_short():
    class Pressed(SimpleNamespace):
        def start(self, settings):
            os.kill(os.getpid(), signal.SIGINT)

    told = []

    def changed():
        if runner.state == "cancelled":
            os.kill(os.getpid(), signal.SIGINT)
        told.append(runner.state)

    runner = Runner(lambda *_: None, changed)
    loader = Pressed(stop=lambda: None, close=lambda: None)
    with pytest.raises(KeyboardInterrupt):
        runner.start(Source(), stream=loader)
    assert told == ["running", "cancelled"]
    assert runner.wait(5)


def test_a_publisher_that_nobody_holds_yet_has_no_thread(monkeypatch):
    """An exception that another thread sends may come as soon as it is made."""

    class Torn(Coalescer):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            raise SystemExit

    monkeypatch.setattr("cka_widget.widgets.run.runner.Coalescer", Torn)
    before, log = set(threading.enumerate()), Log()
    with patch("threading.excepthook"):
        log.runner.start(Source())
        assert log.runner.wait(5)
    assert set(threading.enumerate()) <= before
    assert log.runner.state == "cancelled"
