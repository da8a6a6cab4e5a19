"""Saved files: whole or not at all, unchanged or refused, and no run twice in one result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zoo
from checks import run
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import cka_widget as cw
from cka_widget.engine.compare import iter_compare
from cka_widget.result.result import CKAResult

LONE = "odd \ud800 name"


def result(seed: int = 0) -> CKAResult:
    return run({"a": zoo.mlp(0), "b": [zoo.mlp(1), zoo.mlp(2)]}, zoo.vectors(96, seed=seed))


def changed(data: bytes, draw: random.Random) -> bytes:
    """A file after one accident of many: bits, bytes, stretches, repeats, a lost end."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        at = draw.randrange(len(found))
        match draw.randrange(5):
            case 0:
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at] = draw.randrange(256)
            case 2:
                found[at : at + 64] = bytes(len(found[at : at + 64]))
            case 3:
                del found[at : at + draw.randrange(1, 16)]
            case _:
                found[at:at] = found[at : at + draw.randrange(1, 16)]
    return bytes(found)


def test_changed_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path, draw = tmp_path / "run.safetensors", random.Random(0)
    saved = result()
    saved.save(path)
    data, known = path.read_bytes(), saved.to_frame()
    refused: list[str] = []
    for _ in range(1000):
        path.write_bytes(changed(data, draw))
        try:
            loaded = cw.load(path)
        except ValueError as error:
            refused.append(str(error))
        else:
            pd.testing.assert_frame_equal(loaded.to_frame(), known)
            assert (loaded.rows, loaded.warnings) == (saved.rows, saved.warnings)
            assert dict(loaded.provenance) == dict(saved.provenance)
    assert len(refused) > 950
    assert all("run.safetensors" in said and "\n" not in said for said in refused)


def test_every_bit_of_the_header_counts(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    saved = run({"a": zoo.mlp()}, zoo.vectors(), layers=["0", "4"])
    saved.save(path)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    for bit in range(0, 8 * end, 7):  # a prime: all bits of a byte have their turn
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        try:
            loaded = cw.load(path)
        except ValueError:
            continue
        assert loaded.rows == saved.rows
        assert dict(loaded.provenance) == dict(saved.provenance)
        pd.testing.assert_frame_equal(loaded.to_frame(), saved.to_frame())


def _as_format(path: Path, version: int) -> None:
    """Rewrite a file as that older version had it."""
    with safe_open(path, framework="np") as file:
        text = json.loads(file.metadata()["cka_widget"])
    text["version"] = version
    del text["provenance"]["run_ids"]
    kept = ("moments",) if version == 1 else ()
    arrays = {k: v for k, v in load_file(path).items() if not k.endswith(kept or ("?",))}
    save_file(arrays, path, metadata={"cka_widget": json.dumps(text)})


@pytest.mark.parametrize("version", [1, 2])
def test_older_files_load_and_merge_with_a_warning(tmp_path: Path, version: int) -> None:
    path = tmp_path / "run.safetensors"
    one, two = result(0), result(1)
    one.save(path)
    _as_format(path, version)
    old = cw.load(path)
    pd.testing.assert_frame_equal(old.matrix("a", "b"), one.matrix("a", "b"))
    merged = old.merge(two)
    pd.testing.assert_frame_equal(merged.matrix("a", "b"), one.merge(two).matrix("a", "b"))
    assert any("older version" in sentence for sentence in merged.warnings)
    assert not any("older version" in sentence for sentence in one.merge(two).warnings)
    merged.save(path)
    assert cw.load(path).provenance["run_ids"] == two.provenance["run_ids"]


def test_a_run_is_never_merged_with_itself_or_a_part(tmp_path: Path) -> None:
    models, batches = {"a": zoo.mlp()}, zoo.vectors(96)
    snapshots = [step.result for step in iter_compare(models, batches, device="cpu")]
    part, whole, other = snapshots[1], snapshots[-1], run(models, zoo.vectors(96, seed=1))
    whole.save(tmp_path / "run")
    both = whole.merge(other)
    for one, two in (
        (whole, whole),
        (part, whole),
        (cw.load(tmp_path / "run"), whole),
        (both, other),
        (other, both),
        (cw.concat([whole, run(models, batches, layers="0")]), part),
    ):
        with pytest.raises(ValueError, match=r"count twice|same models, particles and layers"):
            one.merge(two)
    with pytest.raises(ValueError, match="would count twice"):
        part.merge(whole)
    assert both.merge(run(models, zoo.vectors(96, seed=2))).samples == 288


@pytest.mark.parametrize("fault", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    path = tmp_path / "run.safetensors"
    old = result(0)
    old.save(path)

    def fail(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(fault)):
        result(1).save(path)
    assert os.listdir(tmp_path) == ["run.safetensors"]
    np.testing.assert_array_equal(cw.load(path).sums.h, old.sums.h)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    result().save(real)
    link.symlink_to(real)
    new = result(1)
    new.save(link)
    assert link.is_symlink()
    np.testing.assert_array_equal(cw.load(real).sums.h, new.sums.h)


SAVING = """
import dataclasses, sys
import cka_widget as cw
result = cw.load(sys.argv[1])
print("ready", flush=True)
for k in range(10**6):
    sums = dataclasses.replace(result.sums, weight=float(k + 1))
    dataclasses.replace(result, sums=sums).save(sys.argv[1])
"""


def killed_saves(path: Path, times: int) -> int:
    """Kill a process that saves again and again; how often a good file was there afterwards."""
    good, draw = 0, random.Random(0)
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        cw.load(path)
        good += 1
    return good


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a system without SIGKILL")
@pytest.mark.parametrize("times", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_save_leaves_one_good_file(tmp_path: Path, times: int) -> None:
    path = tmp_path / "run.safetensors"
    models = {"a": zoo.resnet18(width=4), "b": zoo.resnet18(width=4)}
    run(models, zoo.images(32, 8, 8), hsic_batch_size=8).save(path)
    assert killed_saves(path, times) == times
    left = [name for name in os.listdir(tmp_path) if name != path.name]
    assert all(name.startswith("run.safetensors.part-") for name in left)


def test_names_that_are_no_unicode_text_do_not_break_what_is_taken_away(tmp_path: Path) -> None:
    saved = run({LONE: zoo.mlp(), "b": zoo.mlp(1)}, zoo.vectors())
    saved.save(tmp_path / "run.safetensors")
    assert cw.load(tmp_path / "run.safetensors").models == (LONE, "b")
    page = saved.to_html(tmp_path / "page.html")
    assert "odd \ufffd name" in page
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
