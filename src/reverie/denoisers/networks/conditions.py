"""What a conditional model is told: one tensor, whose rows go with the rows of the state.

    labels      (B,) integers          -1 is a row without a label
    values      (B, *shape) numbers    NaN is a value not observed: vectors, images, masked points

`None` is no condition in any row. As a row may always lack its condition, one network serves the
conditional and the unconditional model (Ho & Salimans 2022) and, with masks, every conditional of
a joint law (Gloeckler et al. 2024).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reverie.errors import InputError

NO_LABEL = -1


class Labels(nn.Module):
    """Labels 0 to classes - 1, and none.

    InputError on labels that are none of these.

    >>> import torch
    >>> from reverie.denoisers import Labels
    >>> Labels(3)(torch.tensor([0, 2, -1]), like=torch.zeros(3, 2))  # -1 is no label
    tensor([0, 2, 3])
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise InputError(f"classes is {classes}; there must be at least one")
        self.classes = classes

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `build_condition` that rebuild this, for a run's `config.json`."""
        return {"classes": self.classes}

    def forward(self, condition: Tensor | None, like: Tensor) -> Tensor:
        """Index (B,) of an embedding of classes + 1 rows: the last is for no label."""
        if condition is None:
            return torch.full((len(like),), self.classes, device=like.device)
        labels = torch.as_tensor(condition, device=like.device)
        if labels.is_floating_point() or labels.shape != (len(like),):
            raise InputError(
                f"this model takes one integer label per row, ({len(like)},), not "
                f"{labels.dtype} of shape {tuple(labels.shape)}"
            )
        if (labels < NO_LABEL).any() or (labels >= self.classes).any():
            raise InputError(f"labels run from 0 to {self.classes - 1}, with {NO_LABEL} for none")
        return torch.where(labels < 0, self.classes, labels.long())


class Values(nn.Module):
    """Numbers of `shape`, any of them missing; standardised by the moments of the training set.

    Vectors are standardised per coordinate, images (C, H, W) and volumes per channel.
    InputError on another shape.

    >>> import torch
    >>> from reverie.denoisers import Values
    >>> encoder = Values((2,)).learn(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
    >>> encoder(torch.tensor([[1.0, torch.nan]]), like=torch.zeros(1, 2))
    (tensor([[0., 0.]]), tensor([[1., 0.]]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        per = (shape[0], *(1,) * (len(shape) - 1)) if len(shape) >= 3 else self.shape
        self.register_buffer("mean", torch.zeros(per))
        self.register_buffer("std", torch.ones(per))

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `build_condition` that rebuild this, for a run's `config.json`."""
        return {"shape": list(self.shape)}

    def learn(self, conditions: Tensor) -> Values:
        """Take the moments of training conditions (n, *shape); what is missing does not count."""
        seen = ~conditions.isnan()
        axes = [0, *range(2, conditions.ndim)] if len(self.shape) >= 3 else [0]
        count = seen.sum(axes, keepdim=True).clamp(min=1)
        mean = conditions.nan_to_num().sum(axes, keepdim=True) / count
        square = ((conditions - mean).nan_to_num() * seen).square().sum(axes, keepdim=True)
        std = (square / count).sqrt()
        self.mean.copy_(mean[0])
        self.std.copy_(torch.where(std[0] > 0, std[0], 1.0))
        return self

    def forward(self, condition: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised values, 0 where missing, and what was observed: both (B, *shape)."""
        if condition is None:
            empty = like.new_zeros(len(like), *self.shape)
            return empty, empty
        values = torch.as_tensor(condition, device=like.device).to(like.dtype)
        if values.shape != (len(like), *self.shape):
            raise InputError(
                f"this model takes a condition of shape {(len(like), *self.shape)}, "
                f"not {tuple(values.shape)}"
            )
        seen = ~values.isnan()
        scaled = (values - self.mean.to(like)) / self.std.to(like)
        return scaled.nan_to_num(), seen.to(like)


Encoder = Labels | Values


def build_condition(
    *, classes: int | None = None, shape: tuple[int, ...] | list[int] | None = None
) -> Encoder:
    """The encoder of labels or of values of `shape`; InputError unless exactly one is given.

    >>> from reverie.denoisers import build_condition
    >>> build_condition(classes=3).settings(), build_condition(shape=(2,)).settings()
    ({'classes': 3}, {'shape': [2]})
    """
    if (classes is None) == (shape is None):
        raise InputError("a condition is either labels (give classes) or values (give shape)")
    return Labels(int(classes)) if classes is not None else Values(tuple(shape or ()))


def condition_of(conditions: Tensor) -> Encoder:
    """The encoder for training conditions: integers (n,) are labels, all else values (n, *shape).

    Raises InputError on a negative label, or on infinite values.

    >>> import torch
    >>> from reverie.denoisers import condition_of
    >>> type(condition_of(torch.tensor([0, 1, 1]))).__name__
    'Labels'
    >>> type(condition_of(torch.tensor([[0.5, 1.0]]))).__name__
    'Values'
    """
    if _are_labels(conditions):
        if (conditions < NO_LABEL).any():
            raise InputError(f"labels count from 0; {int(conditions.min())} is none")
        return Labels(int(conditions.max()) + 1)
    if conditions.ndim < 2:
        raise InputError("conditions of one number per row have shape (n, 1), not (n,)")
    values = conditions.float()
    if values.isinf().any():
        raise InputError("a condition holds infinite values; use NaN for what is missing")
    return Values(tuple(values.shape[1:])).learn(values)


def drop_conditions(
    conditions: Tensor, share: float, generator: torch.Generator | None = None
) -> Tensor:
    """Take the condition from each row with chance `share`, as classifier-free guidance needs.

    conditions: labels (n,), which become -1, or values (n, ...), which become NaN.
    Source: Ho & Salimans 2022.

    >>> import torch
    >>> from reverie.denoisers import drop_conditions
    >>> drop_conditions(torch.arange(6), 0.5, torch.Generator().manual_seed(0))
    tensor([-1,  1, -1, -1, -1,  5])
    """
    lost = torch.rand(len(conditions), generator=generator, device=conditions.device) < share
    if _are_labels(conditions):
        return conditions.masked_fill(lost, NO_LABEL)
    lost = lost.reshape(-1, *(1,) * (conditions.ndim - 1))
    values = conditions if conditions.is_floating_point() else conditions.float()
    return values.masked_fill(lost, math.nan)


def _are_labels(conditions: Tensor) -> bool:
    return conditions.ndim == 1 and not conditions.is_floating_point()


def condition_rows(condition: Any, count: int, like: Tensor) -> Any:
    """One condition for each of `count` rows, on the device (and type) of the tensor `like`.

    A single row serves all. What is not an array (a model's own kind of condition) passes as it
    is. Raises InputError on another number of rows.
    condition: (count, ...) or (1, ...).

    >>> import torch
    >>> from reverie.denoisers import condition_rows
    >>> condition_rows(torch.tensor([[1.0, 2.0]]), 3, like=torch.zeros(3, 5)).shape
    torch.Size([3, 2])
    """
    if condition is None or not hasattr(condition, "__array__"):
        return condition
    rows = torch.as_tensor(condition, device=like.device)
    if rows.is_floating_point() and like.is_floating_point():
        rows = rows.to(like.dtype)
    if rows.ndim == 0 or len(rows) == count:
        return rows
    if len(rows) != 1:
        raise InputError(f"{len(rows)} conditions for {count} rows: give one for each, or one")
    return rows.expand(count, *rows.shape[1:])
