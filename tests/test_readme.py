"""The README's examples run as they stand, and what it points to is there."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def net(depth: int) -> nn.Module:
    """Blocks named as in the README."""
    blocks = {f"block{i}": nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for i in range(1, depth + 1)}
    return nn.Sequential(OrderedDict(**blocks, fc=nn.Linear(6, 3)))


def test_the_examples_run() -> None:
    example, measures = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {f"net{i}": net(3 if i < 4 else 6) for i in range(8)}
    names["loader"] = [torch.randn(16, 6) for _ in range(6)]
    exec(example, names)
    result = names["result"]
    assert names["explorer"].state == "done"
    assert result.matrix("shallow", "deep").notna().all(axis=None)
    assert result.particles("shallow", "deep", row="block3", col="block6").shape == (4, 4)

    exec(measures, names)
    result = names["result"]
    assert result.measures == ("cka", "rsa", "mutual_knn", "far_pairs")
    assert result.matrix("shallow", "deep", measure="far_pairs").abs().lt(1).all(axis=None)
    assert result.of("mutual_knn").measure.chance == pytest.approx(3 / 15)


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    pictures = re.findall(r"\bsrc(?:set)?=\"([^\":]+)\"", README)
    assert len(pictures) >= 2
    for target in [*targets, *pictures]:
        path = ROOT / target
        assert path.is_file(), target
        assert path.suffix != ".png" or path.stat().st_size < 200_000, target
