"""What the states are made of: small networks, and batches that come when they are let.

The notebooks of `test_states.py` begin with this file as their first cell.
"""

import threading
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import interpolate

torch.set_num_threads(1)


class Gate:
    """Batches of smooth random images; one that is not let through yet waits."""

    batch_size = 64

    def __init__(self, batches=16, first=1):
        self.batches, self.open, self._moved = batches, first, threading.Condition()

    def let(self, first):
        """Let the first so many batches through."""
        with self._moved:
            self.open = first
            self._moved.notify_all()

    def __len__(self):
        return self.batches

    def __iter__(self):
        for number in range(self.batches):
            with self._moved:
                self._moved.wait_for(lambda at=number: at < self.open)
            noise = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(number))
            yield interpolate(noise, (8, 8), mode="bilinear")


class Noise(nn.Module):
    """With a scale, drowns its input: nothing in common with other networks from here on."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        return x + self.scale * x.std() * noise


class Broken(nn.Module):
    """Raises once it is told to."""

    now = False

    def forward(self, x):
        if Broken.now:
            raise RuntimeError("CUDA out of memory: 2.4 GiB were asked for, 1.1 GiB are free")
        return x


class Same(nn.Module):
    """Always the same output."""

    def forward(self, x):
        return torch.ones_like(x)


class Aside(nn.Module):
    """Layers that lead nowhere: one always says the same, one never runs."""

    def __init__(self):
        super().__init__()
        self.same, self.idle = Same(), nn.Linear(2, 2)

    def forward(self, x):
        self.same(x)
        return 1.5 * x


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def cnn(blocks, width, seed, **extra):
    """Three stages of `blocks` blocks; `extra` puts modules after the stages of those names."""
    torch.manual_seed(seed)

    def conv(before, after, stride=1):
        kernel = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        nn.init.orthogonal_(kernel.weight)
        return kernel

    layers = OrderedDict(conv1=conv(3, width), bn1=nn.BatchNorm2d(width))
    for stage in (1, 2, 3):
        before, after = width * max(1, stage - 1), width * stage
        layers[f"layer{stage}"] = nn.Sequential(
            *(
                nn.Sequential(
                    OrderedDict(
                        conv=conv(after if i else before, after, 2 if stage > 1 and not i else 1),
                        bn=nn.BatchNorm2d(after),
                        relu=nn.LeakyReLU(0.5),
                    )
                )
                for i in range(blocks)
            )
        )
        if f"layer{stage}" in extra:
            layers[f"after{stage}"] = extra[f"layer{stage}"]
    layers |= OrderedDict(pool=Mean(), fc=nn.Linear(3 * width, 10))
    return nn.Sequential(layers).eval()


def wide(seed, **extra):
    return cnn(2, 16, seed, **extra)


def deep(seed, **extra):
    return cnn(3, 12, seed, **extra)


def ensembles():
    """Four wide and five deep networks; deep #3 is odd from its third stage on."""
    return {
        "wide CNN": [wide(i) for i in range(4)],
        "deep CNN": [deep(10 + i, layer2=Noise(8.0 * (i == 3))) for i in range(5)],
    }


class Residual(nn.Sequential):
    def forward(self, x):
        return x + 0.35 * torch.tanh(super().forward(x))


def transformer(blocks, drift=0.0):
    """A long stack with a transformer's names, 7 layers a block and 3 more; `drift` trains on."""
    torch.manual_seed(0)
    names = ("norm1", "query", "key", "value", "project", "mlp")

    def block():
        return Residual(
            OrderedDict((n, (nn.LayerNorm if n == "norm1" else line)(12)) for n in names)
        )

    def line(width):
        layer = nn.Linear(width, 12)
        nn.init.orthogonal_(layer.weight)
        return layer

    stack = OrderedDict(flat=nn.Flatten(), embed=line(192))
    stack["blocks"] = nn.Sequential(*(block() for _ in range(blocks)))
    stack["head"] = line(12)
    with torch.no_grad():
        for module in stack.values():
            for weight in module.parameters():
                weight += drift * torch.randn(weight.shape)
    return nn.Sequential(stack).eval()
