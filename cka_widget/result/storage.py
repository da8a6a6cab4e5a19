"""Scores as one safetensors file: arrays, and JSON for all that is text."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from cka_widget.result.measure_facts import Measured, MeasureFacts
from cka_widget.result.row_index import ModelRows
from cka_widget.result.scores import Scores
from cka_widget.result.sums import ARRAYS, HsicSums, empty, of_older_sums

# Format 3 has a checksum, the ids of its runs, measures, units and what chance gives; 2 brought
# `moments`.
VERSION = 3
_KEY, _CHECKSUM = "cka_widget", "sha256"
# Above any count or sum of a run, and far within float64.
_MOST = 1e18
# Arrays that files of format 1 and 2 may lack.
_LATER = ("moments", "chance2", "chance4")
_KINDS: dict[str, Any] = {
    "rows": list,
    "row_reasons": list,
    "weight": (int, float),
    "blocks": int,
    "samples": int,
    "batches": int,
    "warnings": list,
    "provenance": dict,
}


def save(result: Scores, path: str | PathLike[str]) -> None:
    """Write a result with its sums, so that it can be merged later; nothing is pickled.

    The file is written beside `path`, as `path` with ".part-" and a number, and takes its place
    when it is whole: whatever happens meanwhile, an older file stays as it was.

    Raises:
        FileNotFoundError: the directory does not exist.
        OSError: the file cannot be written.
    """
    if not (directory := Path(path).parent).is_dir():
        raise FileNotFoundError(f"cannot save {path}: create the directory {directory} first")
    measured = [Measured(result.measure, result.sums, result.pooled), *result.others]
    parts = {_prefix(k): one.sums for k, one in enumerate(measured)}
    parts |= {_prefix(k) + "pooled.": one.pooled for k, one in enumerate(measured) if one.pooled}
    arrays = {
        prefix + name: np.ascontiguousarray(getattr(sums, name))
        for prefix, sums in parts.items()
        for name in (*ARRAYS, "unit")
    }
    text = {
        "version": VERSION,
        "rows": [asdict(rows) for rows in result.rows],
        "measures": [asdict(one.facts) for one in measured],
        "row_reasons": result.row_reasons,
        "weight": result.sums.weight,
        "blocks": result.sums.blocks,
        "samples": result.samples,
        "batches": result.batches,
        "warnings": result.warnings,
        "provenance": dict(result.provenance),
    }
    header = json.dumps(text)
    data = to_bytes(arrays, metadata={_KEY: header, _CHECKSUM: _checksum(header, arrays)})
    try:
        _replace(Path(path), data)
    except OSError as error:
        raise OSError(f"cannot save {path}: {error}") from error


def _prefix(measure: int) -> str:
    """Before the names of a measure's arrays; nothing for the first, as in files that had one."""
    return f"{measure}." if measure else ""


def _replace(path: Path, data: bytes) -> None:
    """Give a file these contents, all or none of them."""
    if path.is_dir():
        raise IsADirectoryError("it is a directory")
    target = path.resolve()  # of a link, what it points to
    part = target.with_name(f"{target.name}.part-{secrets.token_hex(4)}")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _checksum(header: str, arrays: Mapping[str, Any]) -> str:
    """SHA-256 of the text and of every array with its name, type and shape."""
    digest = hashlib.sha256(header.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """The fields of the `Scores` that `save` wrote; torch need not be installed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, damaged, or written by a newer version; the message says which.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:  # TypeError: numbers that numpy does not know
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
    if _KEY not in metadata:
        raise ValueError(f"{path} was not written by cka_widget")
    try:
        text = json.loads(metadata[_KEY])
        version = text["version"]
        if type(version) is not int:
            raise TypeError(f"its version is {version!r}")
        if version <= VERSION:
            # A newer version may sum otherwise: it is told by its number.
            if version > 2 or _CHECKSUM in metadata:
                _check(metadata, arrays)
            return _restore(text, arrays)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    raise ValueError(
        f"{path} has format {version}, newer than the {VERSION} this cka_widget reads; upgrade it"
    )


def _check(metadata: Mapping[str, str], arrays: Mapping[str, Any]) -> None:
    """Raises ValueError where the file is not as it was written."""
    if metadata.get(_CHECKSUM) != _checksum(metadata[_KEY], arrays):
        raise ValueError("its contents were changed after it was saved")


def _restore(text: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    for what, kind in _KINDS.items():
        if not isinstance(text[what], kind) or isinstance(text[what], bool):
            raise TypeError(f"its {what} is a {type(text[what]).__name__}")
    for what in ("weight", "blocks", "samples", "batches"):
        if not 0 <= text[what] < _MOST:
            raise ValueError(f"its {what} is {text[what]}")
    if (text["weight"] > 0) != (text["blocks"] > 0):
        raise ValueError(f"its weight is {text['weight']} at {text['blocks']} blocks")
    rows = tuple(_rows(**one) for one in text["rows"])
    if len({m.name for m in rows}) != len(rows):
        raise ValueError("two of its models have one name")
    if len(text["row_reasons"]) != sum(map(len, rows)):
        raise ValueError("its reasons do not fit its layers")
    _check_provenance(text["provenance"], sum(map(len, rows)))
    size = sum(map(len, rows))
    layers = sum(len(m.layers) for m in rows)
    ensembles = any(m.n_particles > 1 for m in rows)
    measured = []
    for k, facts in enumerate(_facts(text, size)):
        prefix, pooled = _prefix(k), None
        if prefix + "pooled.h" in arrays or ensembles:
            pooled = _sums(prefix + "pooled.", layers, text, arrays)
        measured.append(Measured(facts, _sums(prefix, size, text, arrays), pooled))
    first, *others = measured
    return {
        "rows": rows,
        "measure": first.facts,
        "sums": first.sums,
        "pooled": first.pooled,
        "others": tuple(others),
        "row_reasons": tuple(None if r is None else _text(r) for r in text["row_reasons"]),
        "samples": text["samples"],
        "batches": text["batches"],
        "warnings": tuple(map(_text, text["warnings"])),
        "provenance": text["provenance"],
    }


def _facts(text: dict[str, Any], rows: int) -> list[MeasureFacts]:
    """What is known of the measures; files that do not say it hold one CKA."""
    listed = text.get("measures")
    if listed is None:
        return [_older_cka(text["provenance"])]
    if not isinstance(listed, list) or not listed:
        raise TypeError(f"its measures are {listed!r}")
    found = [_one_measure(rows, **one) for one in listed]
    if len({one.name for one in found}) != len(found):
        raise ValueError("two of its measures have one name")
    return found


def _one_measure(
    rows: int,
    name: Any,
    title: Any,
    options: Any,
    chance: Any,
    block_size: Any,
    invariances: Any,
    permuted: Any,
    row_options: Any,
) -> MeasureFacts:
    if chance is not None and not (_is_number(chance) and abs(chance) < _MOST):
        raise ValueError(f"its value by chance is {chance!r}")
    if block_size is not None and (type(block_size) is not int or not 0 < block_size < _MOST):
        raise ValueError(f"its block size is {block_size!r}")
    if type(permuted) is not bool or not isinstance(options, dict):
        raise TypeError("what it says of its measures is of another kind")
    fixed = {_text(key): tuple(numbers) for key, numbers in row_options.items()}
    for numbers in fixed.values():
        if len(numbers) != rows or any(n is not None and not _is_number(n) for n in numbers):
            raise ValueError("what its first batch fixed does not fit its layers")
    return MeasureFacts(
        name=_text(name),
        title=_text(title),
        options=options,
        chance=chance,
        block_size=block_size,
        invariances=tuple(map(_text, invariances)),
        permuted=permuted,
        row_options=fixed,
    )


def _older_cka(provenance: Mapping[str, Any]) -> MeasureFacts:
    """Of a file that tells kernel and estimator only."""
    kernel, unbiased = provenance.get("kernel", "linear"), provenance.get("unbiased", True)
    options: dict[str, Any] = {"kernel": kernel, "unbiased": unbiased}
    rbf, sigma = kernel == "rbf", provenance.get("sigma")
    return MeasureFacts(
        name="cka",
        title="CKA, RBF kernel" if rbf else "CKA",
        options=options | ({"bandwidth": provenance.get("bandwidth")} if rbf else {}),
        chance=0.0 if unbiased else None,
        permuted=bool(unbiased),
        row_options={"sigma": tuple(sigma)} if sigma else {},
    )


def _check_provenance(found: Mapping[str, Any], rows: int) -> None:
    """What later code counts with; the rest is told as it stands."""
    seconds, sigma = found.get("seconds", 0.0), found.get("sigma")
    if not _is_number(seconds) or not 0 <= seconds < _MOST:
        raise ValueError(f"its seconds are {seconds!r}")
    if sigma is not None and not (
        isinstance(sigma, list)
        and len(sigma) == rows
        and all(one is None or (_is_number(one) and 0 < one < _MOST) for one in sigma)
    ):
        raise ValueError("its bandwidths do not fit its layers")
    for what, kind in (("seeds", int), ("run_ids", str)):
        listed = found.get(what) or []
        if not isinstance(listed, list) or any(type(one) is not kind for one in listed):
            raise TypeError(f"its {what} are {listed!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rows(name: Any, layers: Any, n_particles: Any, aliases: Any, skipped: Any) -> ModelRows:
    kinds = tuple(map(type, (layers, n_particles, aliases, skipped)))
    if kinds != (list, int, dict, dict) or n_particles < 1:
        raise TypeError("its layers, particles or their names are of another kind")
    if len(set(map(_text, layers))) != len(layers):
        raise ValueError("two of its layers have one name")
    if not set(aliases.values()) <= set(layers):
        raise ValueError("one of its names stands for no layer")
    aliases, skipped = ({_text(k): _text(v) for k, v in d.items()} for d in (aliases, skipped))
    return ModelRows(_text(name), tuple(map(_text, layers)), n_particles, aliases, skipped)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} stands in the place of a text")
    return value


def _sums(prefix: str, size: int, text: dict[str, Any], arrays: dict[str, Any]) -> HsicSums:
    found = {name: arrays[prefix + name] for name in ARRAYS if name not in _LATER}
    # Files of format 1 have no moments: what they hold is shown without confidence intervals.
    found |= {name: arrays.get(prefix + name, empty(name, size)) for name in _LATER}
    # Those of formats 1 and 2 count in 2^0.
    found["unit"] = arrays.get(prefix + "unit", np.zeros(size))
    wanted = {name: empty(name, size) for name in found}
    if any((a.shape, a.dtype) != (wanted[k].shape, wanted[k].dtype) for k, a in found.items()):
        raise ValueError("its arrays do not fit its layers")
    if not (np.abs(found["unit"]) < 1e6).all():
        raise ValueError("its units are no numbers")
    if prefix + "chance2" not in arrays:
        of_older_sums(found, text["weight"], text["blocks"], text["samples"])
    return HsicSums(text["weight"], text["blocks"], **found)
