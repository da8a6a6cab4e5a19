"""Recurrent, attention and token models, and a tokenizer's batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.data import seeded
from zoo.outputs import ModelOutput


class Recurrent(nn.Module):
    """Batch-first and time-first LSTMs, fed with batch-first data (n, time, d)."""

    def __init__(self, d: int = 8, hidden: int = 6) -> None:
        super().__init__()
        self.first = nn.LSTM(d, hidden, batch_first=True)
        self.second = nn.LSTM(hidden, hidden, batch_first=False)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.first(x)
        x, _ = self.second(x.transpose(0, 1))
        return self.head(x[-1])


class TimeFirst(nn.Module):
    """Everything after the first transposition carries time first (time, n, d)."""

    def __init__(self, d: int = 8, hidden: int = 6) -> None:
        super().__init__()
        self.rnn = nn.GRU(d, hidden)
        self.drop = nn.Dropout(0.1)
        self.mix = nn.Linear(hidden, hidden)
        self.attention = nn.MultiheadAttention(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.rnn(x.transpose(0, 1))
        x = torch.tanh(self.mix(self.drop(x)))
        return self.attention(x, x, x)[0].mean(0)


class Packed(nn.Module):
    """A packed sequence between an embedding and a head."""

    def __init__(self, d: int = 8, hidden: int = 6) -> None:
        super().__init__()
        self.rnn = nn.LSTM(d, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.arange(len(x), 0, -1).clamp(2, x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        _, (last, _) = self.rnn(packed)
        return self.head(last[-1])


class Attention(nn.Module):
    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(d, 2, batch_first=True)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, _ = self.attention(x, x, x)
        return self.head(self.norm(x + a).mean(1))


def encoder(layers: int = 2, d: int = 8, seed: int = 0) -> nn.Module:
    def build() -> nn.Module:
        layer = nn.TransformerEncoderLayer(d, 2, 16, batch_first=True, norm_first=True)
        return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    return seeded(build, seed=seed)


class TokenClassifier(nn.Module):
    """Takes what a tokenizer gives; padded positions hold large numbers unless masked."""

    def __init__(self, vocabulary: int = 40, d: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.mix = nn.Linear(d, d)
        self.pool = nn.Linear(d, 3)
        nn.init.constant_(self.embed.weight[0].data, 50.0)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, scale: float = 1.0
    ) -> ModelOutput:
        x = torch.tanh(self.mix(self.embed(input_ids))) + self.embed(input_ids) * scale
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weights = mask[..., None].to(x.dtype)
        pooled = self.pool((x * weights).sum(1) / weights.sum(1))
        return ModelOutput(last_hidden_state=x, logits=pooled)


def token_batches(n: int = 24, length: int = 9, batch: int = 12, seed: int = 0) -> list[dict]:
    """Mappings with input_ids, attention_mask and labels; padding is id 0 on the right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 40, (n, length), generator=generator)
    lengths = torch.randint(2, length + 1, (n,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    labels = torch.randint(0, 3, (n,), generator=generator)
    full = {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}
    parts = {key: value.split(batch) for key, value in full.items()}
    return [dict(zip(parts, group, strict=True)) for group in zip(*parts.values(), strict=True)]


class MaskedEncoder(nn.Module):
    """Two torch encoder layers; in eval mode a mask makes nested tensors of all within them."""

    def __init__(self, d: int = 8, nested: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(d, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.head = nn.Linear(d, 3)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.encoder(x, src_key_padding_mask=~attention_mask.bool())
        return self.head(x[:, 0])


def masked_batches(n: int = 48, length: int = 7, d: int = 8, batch: int = 16) -> list[dict]:
    """Sequences of two to `length` steps; in the last batch none is that long."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, length, d, generator=generator)
    lengths = torch.randint(2, length + 1, (n,), generator=generator)
    lengths[-batch:].clamp_(max=length - 2)
    mask = torch.arange(length) < lengths[:, None]
    parts = zip(x.split(batch), mask.split(batch), strict=True)
    return [{"x": x, "attention_mask": mask} for x, mask in parts]
