"""A model beside the linear optimum: c = l + w(u) (g - l), one weight a level and mode.

A model that predicts noise turns an error e into an error (sigma/alpha) e of its guess, so that at
the noisy end of a beta table it is far worse than the mean of the data. There w is 0; where the
model is good, 1. See `mixing` for how weights are read and `references` for l.

Between the levels of the fit the weights are interpolated linearly in the log clock, so that they
stay between their neighbours' (monotone, no overshoot); beyond the ends they are held.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from reverie.calibration.mixing_rules import mixing_of
from reverie.calibration.references import Reference
from reverie.calibration.result import Calibration
from reverie.denoisers.base import Denoiser
from reverie.errors import InputError
from reverie.files import new_folder, read_json, write_bytes, write_json

FORMAT = 1


class Calibrated(Denoiser):
    """`denoiser` and `reference` mixed with `weights` (L, G) at process times `times` (L,).

    The condition goes to the denoiser. A guess that has no weight at all is not looked at, finite
    or not. Made by `calibrate`; `calibration` says what it brought. Raises
    InputError where times and weights do not fit together.

    >>> import torch
    >>> from reverie import Calibrated, calibrate
    >>> from reverie.denoisers import Linear
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> model = Linear(VP(), torch.zeros(2), torch.ones(2), torch.eye(2))
    >>> better = calibrate(model, rows, levels=8, generator=torch.Generator().manual_seed(0))
    >>> isinstance(better, Calibrated), better(torch.zeros(3, 2), torch.tensor(0.5)).shape
    (True, torch.Size([3, 2]))
    """

    def __init__(
        self,
        denoiser: Denoiser,
        reference: Reference,
        times: np.ndarray,
        weights: np.ndarray,
        per: str = "mode",
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.reference, self.process = denoiser, reference, denoiser.process
        self.per, self.calibration = per, calibration
        self.seen = reference.seen if denoiser.seen is None else denoiser.seen
        self.mixing = mixing_of(self.process, reference, per)
        self.times = np.asarray(times, dtype=np.float64)
        table = torch.as_tensor(np.asarray(weights), dtype=torch.float64)
        if table.shape != (len(self.times), self.mixing.groups):
            raise InputError(
                f"weights have shape {tuple(table.shape)}; need "
                f"{(len(self.times), self.mixing.groups)}, a level a row"
            )
        # plain attributes: a module moved to half precision must keep its weights
        self.table = table
        clock = self.process.clock(torch.as_tensor(self.times)).reshape(len(table), -1)
        self.is_log = bool((clock > 0).all())
        self.axis = self._axis(clock)

    def _axis(self, clock: Tensor) -> Tensor:
        clock = clock.double().reshape(len(clock), -1)
        return (clock.log() if self.is_log else clock).mean(1)

    def weights_at(self, t: Tensor | float) -> Tensor:
        """Weights (T, G) in float64 at times t, () or (T,)."""
        time = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
        axis, table = self.axis.to(time.device), self.table.to(time.device)
        place = self._axis(self.process.clock(time).to(time.device))
        right = torch.searchsorted(axis, place.contiguous()).clamp(1, len(axis) - 1)
        share = (place - axis[right - 1]) / (axis[right] - axis[right - 1])
        return torch.lerp(table[right - 1], table[right], share.clamp(0, 1)[:, None])

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        first = self.reference(state, t)
        second = self.denoiser(state, t, condition)
        weights = self.weights_at(t).to(state.device)
        unused = (weights == 0).all(1).reshape(-1, *(1,) * (first.ndim - 1))
        kind = second.dtype
        work = torch.promote_types(kind, torch.float32)
        first, second = first.to(work), second.to(work)
        second = torch.where(unused, first, second)
        return self.mixing.mix(first, second, weights.to(work)).to(kind)

    def save_pretrained(
        self, folder: str | Path, *, of: str | None = None, replace: bool = False
    ) -> Path:
        """Write the reference, the weights and what is known of them; the model stays its own.

        `config.json` and `calibration.safetensors`, in a new folder that appears at once. of: a
        checksum of the model, which `from_pretrained` can ask for. replace: what stands there.
        Raises InputError where the folder is not empty or cannot be written.
        """
        tensors = {f"reference.{k}": v for k, v in self.reference.tensors().items()}
        clock = self.process.clock(torch.as_tensor(self.times)).double()
        tensors |= {"weights": self.table, "times": torch.as_tensor(self.times), "clock": clock}
        flat = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        known = None if self.calibration is None else self.calibration.to_json()
        config = {
            "format": FORMAT,
            "per": self.per,
            "reference": self.reference.kind,
            "calibration": known,
            "of": of,
        }
        with new_folder(Path(folder), replace=replace) as place:
            write_bytes(place / "calibration.safetensors", lambda file: file.write(save(flat)))
            write_json(place / "config.json", config)
        return Path(folder)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, denoiser: Denoiser, *, of: str | None = None
    ) -> Calibrated:
        """What `save_pretrained` wrote, around the denoiser it was fitted to.

        of: the denoiser's checksum, to be the one that was saved. Raises InputError on a damaged
        folder, an unknown reference (import the module that defines it first), a denoiser whose
        process has another clock, or another checksum.
        """
        place = Path(folder)
        config = read_json(place / "config.json")
        if of is not None and config.get("of") != of:
            raise InputError(f"{place} was calibrated for other weights: calibrate again")
        try:
            found = load((place / "calibration.safetensors").read_bytes())
            # where numbers lie in memory may decide the last bits of a product
            tensors = {name: values.clone() for name, values in found.items()}
            kind, per, known = config["reference"], config["per"], config["calibration"]
            times, clock, weights = (tensors.pop(k) for k in ("times", "clock", "weights"))
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise InputError(f"{place} is damaged ({error}): calibrate again") from error
        if kind not in Reference.kinds:
            raise InputError(f"no reference is called {kind!r}; import the module that defines it")
        own = denoiser.process.clock(times).double()
        if own.shape != clock.shape or not torch.allclose(own, clock, rtol=1e-6):
            raise InputError(
                f"{place} was calibrated on another noise schedule than this denoiser's"
            )
        parts = {k.removeprefix("reference."): v for k, v in tensors.items()}
        reference = Reference.kinds[kind].from_tensors(denoiser.process, parts)
        calibration = None if known is None else Calibration.from_json(known, denoiser.process)
        return cls(denoiser, reference, times.numpy(), weights.numpy(), per, calibration)
