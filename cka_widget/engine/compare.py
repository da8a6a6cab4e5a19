"""One pass over the data, all layers of all particles of all models."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from cka_widget.engine.calls.calls import Forwards
from cka_widget.engine.data.prefetch import Prefetch
from cka_widget.engine.data.streams import Stream
from cka_widget.engine.errors import CKAWarning, CompareError, summary
from cka_widget.engine.grams import accelerator
from cka_widget.engine.grams.groups import Groups
from cka_widget.engine.interrupts import AtLast, Shield
from cka_widget.engine.measures.registry import Measures
from cka_widget.engine.models.layers import Layers
from cka_widget.engine.options import check, names_checked
from cka_widget.engine.outputs.features import Reduce
from cka_widget.engine.outputs.samples import CountSamples
from cka_widget.engine.session import Session
from cka_widget.result.result import CKAResult


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands after a batch.

    Attributes:
        batches, samples: what went in so far.
        total_batches, total_samples: what the loader promises, None where it does not say.
        seconds: since the run began.
        device: where the models run, such as "cuda:0".
        done: nothing more comes.
    """

    batches: int
    total_batches: int | None
    samples: int
    total_samples: int | None
    seconds: float
    device: str
    done: bool
    _result: Callable[[], CKAResult]

    @property
    def result(self) -> CKAResult:
        """What the run has computed by the time of asking, built anew each time: O(rows^2)."""
        return self._result()


@names_checked
def iter_compare(
    models: Mapping[str, Any],
    loader: Any,
    *,
    layers: Layers | Mapping[str, Layers] = None,
    forward: Forwards = None,
    samples: CountSamples | Mapping[str, CountSamples] | None = None,
    reduce: Reduce = "flatten",
    measures: Measures = None,
    kernel: str | None = None,
    unbiased: bool | None = None,
    bandwidth: float | None = None,
    hsic_batch_size: int | None = None,
    groups: Groups | None = None,
    precision: str | None = None,
    device: str | torch.device | None = None,
    max_batches: int | None = None,
    stop_at_stderr: float | None = None,
    particle_axis: int | Mapping[str, int | None] | None = None,
    vmap: bool = False,
    cuda_graph: bool = False,
) -> Generator[Snapshot, None, None]:
    """Compare models batch by batch: yields a `Snapshot` after each, and a last one when done.

    Closing the generator stops the run; hooks are then gone and every submodule's training
    flag, device and gradient are as they were found. On an accelerator the batch after the current
    one has been drawn from the loader by then, unless `stop_at_stderr` is given. Arguments and
    errors: see `compare`.
    """
    chosen = check(
        models,
        {
            "layers": layers,
            "forward": forward,
            "samples": samples,
            "reduce": reduce,
            "measures": measures,
            "kernel": kernel,
            "unbiased": unbiased,
            "bandwidth": bandwidth,
            "hsic_batch_size": hsic_batch_size,
            "groups": groups,
            "precision": precision,
            "device": device,
            "max_batches": max_batches,
            "stop_at_stderr": stop_at_stderr,
            "particle_axis": particle_axis,
            "vmap": vmap,
            "cuda_graph": cuda_graph,
        },
    )
    session = Session(
        models,
        layers=layers,
        forward=forward,
        samples=samples,
        reduce=reduce,
        measures=chosen,
        hsic_batch_size=hsic_batch_size,
        groups=groups,
        precision=precision,
        device=device,
        particle_axis=particle_axis,
        vmap=vmap,
        cuda_graph=cuda_graph,
    )
    stream = loader
    if not isinstance(stream, Stream):  # an executor has started it where its caller is
        stream = Stream(loader, session.models, max_batches)
    if groups is not None and not callable(groups):
        stream.require_order(len(groups))
    session.provenance["seeds"] = stream.seeds()
    session.notes += stream.warnings()
    session.later_notes = stream.repeats
    return _run(session, stream, stop_at_stderr)


def _run(
    session: Session, stream: Stream, stop_at_stderr: float | None
) -> Generator[Snapshot, None, None]:
    start = time.perf_counter()

    def snapshot(done: bool) -> Snapshot:
        seconds = time.perf_counter() - start
        return Snapshot(
            session.batches,
            stream.total_batches,
            session.samples,
            stream.total_samples,
            seconds,
            str(session.device),
            done,
            lambda: session.result(seconds),
        )

    suspended = False
    once_more = AtLast(session.leave, session.shield.leave, stream.close)
    try:
        # A run that may end by itself draws no batch that it might not need.
        ahead = accelerator.accelerated(session.device) and stop_at_stderr is None
        with session, closing(Prefetch(stream, session.device, ahead=ahead)) as batches:
            while True:
                with session.shield.opened():
                    loaded = next(batches, None)
                if loaded is None:
                    break
                session.step(loaded, batches.advance)
                with session.shield.lifted():
                    suspended = True
                    yield snapshot(done=False)
                    suspended = False
                if stop_at_stderr is not None and session.good_enough(stop_at_stderr):
                    break
    except BaseException as error:
        # Without samples the arguments or the data cannot work; a generator that is closed while
        # it waits for the next step has nobody to tell of its result.
        if not session.samples or (suspended and isinstance(error, GeneratorExit)):
            raise
        result = session.result(time.perf_counter() - start)
        if isinstance(error, CompareError) or not isinstance(error, Exception):
            error.result = result  # type: ignore[attr-defined]
            raise
        raise CompareError(
            f"batch {session.batches + 1} failed: {summary(error)}", result=result
        ) from error
    finally:  # a second Ctrl-C or another thread may have cut cleaning up short
        once_more()
    yield snapshot(done=True)


def compare(
    models: Mapping[str, Any],
    loader: Any,
    *,
    progress: bool = True,
    **options: Any,
) -> CKAResult:
    """Minibatch CKA between all layers of all particles of the models.

    CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), every HSIC being the mean over blocks
    of the unbiased estimator, weighted by the blocks' samples (Nguyen, Raghu and Kornblith
    2021, eq. 3; Song et al. 2012, eq. 5).

    Args:
        models: name -> `nn.Module`, or a sequence of modules or `StackedParticles` for an
            ensemble. Every particle runs once a batch, in evaluation mode (once more only on a
            batch in which a layer's mean has jumped so far that its Gram lost its digits). Before
            its first batch a model's first particle runs on 2 samples of it, and on 3 where these
            and the batch do not show which axis of each output numbers the samples.
        loader: batches, iterated once; or name -> loader where each model has its own,
            row-aligned data.
        layers: None takes every distinct output of a module that runs; a glob, a list of
            names, a predicate `(name, module) -> bool`, or a mapping of those by model name.
        forward: `forward(model, batch)`, or a mapping of such functions by model name. Without it
            a tensor goes in as it is, a mapping as keyword arguments, and of a tuple or list the
            first element and those whose parameters have no default; labels are left out. What
            it returns for the first batch tells the number of samples where the batch does not.
        samples: `samples(batch)`, the number of samples of a batch, or a mapping of such functions
            by model name; for batches whose tensors do not have them along their first axis.
        reduce: "flatten", "mean" (over space or unmasked tokens), "cls", "last", or a callable
            from an output (n, ...) to features (n, d).
        measures: which similarities to compute, all in the one pass: names ("cka", "rsa",
            "distance_correlation", "mutual_knn", "within_class_cka") and instances of `Measure`,
            such as `RSA(compare="spearman")` or one of your own. The first is shown unless another
            is asked for. None takes "cka".
        kernel: of CKA, "linear" or "rbf"; with the next two a short form of
            `measures=[CKA(kernel=, unbiased=, bandwidth=)]`.
        unbiased: False takes the biased HSIC of Gretton et al. (2005), for comparison with
            papers: it overestimates similarity at small batches.
        bandwidth: of the RBF kernel, as a fraction of the median distance in the first batch.
        hsic_batch_size: cut batches into near-equal blocks of at most this many samples (a few
            more where a block would have under 4); None takes each batch as one block, as the
            papers do. Blocks of 32 are as sure and cost less, see benchmarks/RESULTS.md.
        groups: which samples belong together, as the frames of a clip or the crops of a photograph:
            one value a sample, in the loader's order, or a function of the batch that gives its
            samples' values; None is a group of its own. No block holds two samples of a group then,
            and error bars are over groups. Every batch needs at least 4 whole ones.
        precision: of the Grams: "highest" (float32), "high" (TF32 on NVIDIA GPUs) or "medium"
            (bfloat16). Scores of the benchmarks were off by at most 1e-6, 9e-5 and 5e-4. None
            follows `torch.set_float32_matmul_precision` on CUDA and takes float32 elsewhere.
        device: None takes CUDA, then MPS, then the CPU.
        max_batches: stop after so many.
        stop_at_stderr: stop when no cell's standard error is above this.
        particle_axis: axis of a module's outputs that numbers its particles.
        vmap: experimental. Run all particles of an ensemble as one call of `torch.vmap`, for many
            small ones of one architecture on a GPU. Their parameters are copied side by side, and
            activations of all stand at once. Decisions on data and recurrent layers cannot be
            mapped.
        cuda_graph: experimental. Record the passes of a batch once and replay them for the batches
            after it, of the same shape, so that a GPU need not wait for Python. Models that read
            numbers, keep tensors or do otherwise with another batch run as without, where that is
            seen: it is searched for once and checked once. Hooks of your own do not fire on
            replays.
        progress: show a progress bar.
        options: the above, by name.

    Returns:
        `CKAResult`; values are not clamped, undefined cells are NaN with a reason.

    Raises:
        CompareError: a model or the loader failed; names the model and the layer, and carries
            the partial result.
        TypeError, ValueError: arguments that cannot work, before anything runs.
    """
    last: Snapshot | None = None
    run = iter_compare(models, loader, **options)
    try:
        with Shield() as shield, closing(run), _bar(progress) as show:
            with shield.opened():
                for last in run:
                    show(last)
            assert last is not None
            result = last.result
    except BaseException as error:
        if last is not None and last.samples and getattr(error, "result", None) is None:
            error.result = last.result  # type: ignore[attr-defined]
        raise
    finally:
        run.close()
    for sentence in result.warnings:
        warnings.warn(sentence, CKAWarning, stacklevel=2)
    return result


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[Snapshot], None]]:
    """A function that moves a progress bar; without one it does nothing."""
    if not shown:
        yield lambda snapshot: None
        return
    from tqdm.auto import tqdm

    with tqdm(unit=" samples", desc="CKA") as bar:

        def show(snapshot: Snapshot) -> None:
            bar.total = snapshot.total_samples
            bar.update(snapshot.samples - bar.n)

        yield show
