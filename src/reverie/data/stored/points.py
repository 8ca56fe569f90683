"""Stored rows as a fit sees them: points in model space, read when a batch asks for them.

A tensor's stand-in for `points[rows]`: what is read ahead (`expect`) is decoded by a thread while
the step before is still under way, and a batch that was not foreseen is read on the spot, so that
the rows of a batch are what they would be in memory.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.data.scaler import Scaler
from reverie.data.stored.rows import StoredRows


class StoredPoints:
    """Rows on disk as points (n, *shape) in model space; `points[rows]` is a tensor.

    >>> import tempfile
    >>> import numpy as np
    >>> import torch
    >>> from reverie.data import Scaler, StoredPoints, load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/rows.npy", np.array([[0.0], [2.0], [4.0]]))
    ...     data = load(f"{folder}/rows.npy", stored=True)
    ...     points = StoredPoints(data.values, Scaler.fit(data.loaded()))
    ...     points.shape, points[torch.tensor([1, 1])].tolist()
    ((3, 1), [[0.0], [0.0]])
    """

    def __init__(self, rows: StoredRows, scaler: Scaler, device: Any = "cpu") -> None:
        self.rows, self.scaler, self.device = rows, scaler, torch.device(device)
        self.shape = torch.Size((len(rows), *scaler.point_shape))
        self.ndim = len(self.shape)
        self.ahead: tuple[Tensor, Future[Tensor]] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="reading")

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: Any) -> StoredPoints:
        """The same rows for another device."""
        if torch.device(device) == self.device:
            return self
        return StoredPoints(self.rows, self.scaler, device)

    def expect(self, rows: Tensor) -> None:
        """Read these rows (B,) in the background: they will be asked for next."""
        self.ahead = rows, self.thread.submit(self._read, rows.cpu().numpy())

    def __getitem__(self, rows: Any) -> Tensor:
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            found = ahead[1].result()
            if isinstance(rows, Tensor) and torch.equal(ahead[0], rows):
                return found.to(self.device)
        if isinstance(rows, Tensor):
            rows = rows.cpu().numpy()
        return self._read(rows).to(self.device)

    def _read(self, rows: np.ndarray | slice) -> Tensor:
        if isinstance(rows, slice):
            return self.scaler.to_model(self.rows[rows], self.rows.source)
        known, back = np.unique(rows, return_inverse=True)
        return self.scaler.to_model(self.rows[known], self.rows.source)[torch.from_numpy(back)]


def points_of(scaler: Scaler, data: Dataset) -> Any:
    """The rows in model space: a tensor, or `StoredPoints` of rows that stay on disk."""
    values: Any = data.values
    return StoredPoints(values, scaler) if data.is_stored else scaler.to_model(values)
