"""Every choice of a fit, as one frozen dataclass: config.json and the flags of `reverie fit`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from reverie.errors import InputError

RATE, FLOW_RATE = 1e-3, 3e-3
FLOW = "flow"  # the one network that is no denoiser, perhaps with its kind: flow:maf
NETWORKS = ("mlp", "convolutional", "unet", "fno", "transformer", "kernel", FLOW)
BUDGETS = ("leak_budget", "bias_budget")
PRECISIONS = ("auto", "float32", "bf16", "fp16", "float64")
OBJECTIVES = ("standard", "gap", "gap-fixed")


@dataclass(frozen=True)
class FitConfig:
    """Every choice of a fit: saved as config.json, and the flags of `reverie fit`.

    >>> from reverie.runs import FitConfig
    >>> config = FitConfig(steps=100, width=32)
    >>> config.process is None, config.lr, config.peak  # None: what suits the data
    (True, None, 0.001)
    """

    n: int | None = None
    """Train on N random rows (default: all that are not held out)."""
    holdout: int | None = None
    """Rows held out to compare with (default: enough for the audit to see something)."""
    steps: int = 10_000
    """Optimiser steps."""
    space: str | None = None
    """Where the data live: euclidean (the default), symbols (the default for text), sphere
    (latitude and longitude in degrees, or unit vectors), torus (angles), rotations (matrices),
    hyperbolic, a manifold spelled out, as Sphere(2), shares (rows that sum to 1), table (the
    default for tables with categories, dates or missing cells), or domain (numbers with ends,
    beside such columns)."""
    process: str | None = None
    """How noise enters, with settings after a colon. Vectors: vp, sub-vp, cosine, ve, edm,
    rectified or log-linear (default edm:sigma_min=0.02,sigma_max=40; sigmas in units of the
    data's standard deviation; edm alone reads both off the rows and says why), damped (with a
    velocity), modes:basis=haar or another basis, or functions:kernel=matern-3/2,length=0.1.
    Symbols: masking (default), uniform, ordinal, or rates:FILE.npy, a rate matrix. Manifolds:
    brownian. Shares: wright-fisher or log-ratios. Tables: product (Gaussian noise on numbers,
    masking of categories and missing cells), or product:schedule=vp. Numbers with ends, and tables
    of them: bridge, or bridge:sigma=2. One of your own: package.module:Class[a=1]."""
    bounds: str | None = None
    """With --process bridge, ends of columns, as age=0:120,income=0: (an end that is not said is
    open). A column without a negative number ends at 0 where nothing is said."""
    network: str | None = None
    """mlp (all spaces; the default), convolutional (a U-Net; the default for pictures of 16 x 16
    and more and for volumes), unet (images; that of the extra diffusers), fno (functions),
    transformer (symbols), kernel (manifolds: corrects a kernel estimate of the rows), or flow
    (rows of numbers: no denoiser but an exact density; flow:maf, flow:realnvp or flow:nice instead
    of splines)."""
    objective: str = "standard"
    """standard (guess the clean point), gap (guess the noise of a step of random length) or
    gap-fixed (the same from one fixed noisy version of every row)."""
    width: int | None = None
    """Hidden units of the MLP (default 256), channels of the convolutional network's coarsest
    level (default 64), or of the first level of unet."""
    depth: int = 3
    """Residual blocks of the MLP; a level of the convolutional network has a third as many."""
    batch_size: int = 128
    """Rows per optimiser step, over all accumulated parts and all processes."""
    lr: float | None = None
    """Peak learning rate, after warm-up and before the cosine decay (default 1e-3; of a flow 3e-3,
    which is held, since the average of weights does what a decay would)."""
    warmup: int = 200
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones used."""
    accumulate: int = 1
    """Split each batch into this many parts, to save memory."""
    augment: str = "none"
    """none, flip (mirror images) or shift (by up to one pixel); joined by commas."""
    p_mean: float = -0.5
    """Mean of log sigma, in units of the data's deviation, where Gaussian noise trains most (three
    quarters normal, one quarter uniform). With --process edm, ends and this law are read off the
    rows."""
    p_std: float = 1.2
    """Deviation of that law."""
    check_every: int = 500
    """Steps between measurements of the training and held-out curves."""
    patience: int = 4
    """Checks without a better held-out curve before --stop-on-leak stops."""
    leak_budget: float = float("inf")
    """Nats: stop when the leak's lower 95% bound passes this, with or without --stop-on-leak, and
    keep the best held-out average within it (that of the first check where none was)."""
    stop_on_leak: bool = False
    """Stop when the held-out curve no longer improves, and keep the best average. That is no
    promise of privacy: samples may lean to training rows, and members be told, before the curve
    turns. --leak-budget and --bias-budget bound what they name."""
    follow_bias: bool = False
    """Train two more networks on halves of the training rows, with the same noise, and tell at
    every check how far samples lean to their own half, and what share of samples is a training
    row, at once and after cycling (three times the cost of a step)."""
    bias_budget: float = float("inf")
    """Share of samples, 0 to .5: stop when the lower 95% bound of the bias passes this, as with
    --leak-budget; implies --follow-bias."""
    seed: int = 0
    """Seed of the split, the weights and the noise."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    precision: str = "auto"
    """What a step of training multiplies in: float32, bf16 or fp16 (the weights stay in float32),
    float64 (all of it), or auto: bf16 on cuda, float32 elsewhere. Curves are measured in float32
    or better whatever this is."""
    init: str | None = None
    """A run whose weights to start from (fine-tuning)."""

    @property
    def peak(self) -> float:
        """The peak learning rate: what was asked for, or what suits the network."""
        if self.lr is not None:
            return self.lr
        return FLOW_RATE if (self.network or "").partition(":")[0] == FLOW else RATE

    @property
    def follows(self) -> bool:
        """Whether two halves are trained beside the model."""
        return self.follow_bias or math.isfinite(self.bias_budget)

    @property
    def chooses(self) -> bool:
        """Whether the held-out rows choose when the fit ends."""
        return self.stop_on_leak or math.isfinite(self.leak_budget)

    @property
    def bump(self) -> tuple[float, float]:
        """Centre and deviation of the levels that Gaussian noise trains at most."""
        return self.p_mean, self.p_std

    def check(self) -> FitConfig:
        """Return self, or raise InputError that names the first bad setting."""
        self._check_kinds()
        least = dict(
            steps=1, width=1, depth=1, batch_size=1, accumulate=1, check_every=1, patience=1
        )
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise InputError(f"{name} is {given}; it must be at least {value}")
        if not (self.peak > 0 and self.clip > 0 and 0 <= self.ema < 1 and self.weight_decay >= 0):
            raise InputError("lr and clip must be positive, ema in [0, 1), weight_decay >= 0")
        if self.seed < 0 or self.warmup < 0:
            raise InputError("seed and warmup must not be negative")
        if not (self.leak_budget >= 0 and self.bias_budget >= 0):
            raise InputError("leak_budget and bias_budget must not be negative")
        if not (math.isfinite(self.p_mean) and self.p_std > 0):
            raise InputError("p_mean must be finite and p_std positive")
        named = (self.network or "").partition(":")
        if self.network not in (None, *NETWORKS, "custom") and named[0] != FLOW:
            raise InputError(f"network {self.network!r}: choose one of {', '.join(NETWORKS)}")
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"objective {self.objective!r}: choose one of {', '.join(OBJECTIVES)}"
            )
        if self.objective == "gap-fixed" and self.augment != "none":
            raise InputError("gap-fixed keeps one noisy version of every row: use augment none")
        if set(self.augment.split(",")) - {"none", "flip", "shift"}:
            raise InputError(f"augment {self.augment!r}: choose none, flip, shift, or flip,shift")
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}"
            )
        if self.precision == "float64" and self.device == "mps":
            raise InputError("mps has no float64: use device cpu, or another precision")
        if self.batch_size % self.accumulate:
            raise InputError("batch_size must be a multiple of accumulate")
        if self.device != "cpu" and not _has(self.device):
            raise InputError(f"device {self.device!r} is not available here: use cpu")
        return self

    def _check_kinds(self) -> None:
        """Numbers are numbers, and whole where they count something."""
        for name, kind in ((f.name, str(f.type).split()[0]) for f in fields(self)):
            value = getattr(self, name)
            if value is None or kind not in ("int", "float"):
                continue
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or math.isnan(value):
                raise InputError(f"{name} is {value!r}; it must be a number")
            if kind == "int" and not isinstance(value, Integral):
                what = "a number of rows" if name in ("n", "holdout") else "a whole number"
                raise InputError(f"{name} is {value!r}; it must be {what}")

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        return values | {k: None for k in BUDGETS if math.isinf(values[k])}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FitConfig:
        known = {f.name for f in fields(cls)}
        if not isinstance(values, dict):
            raise InputError("the saved settings are damaged: they are not a table of names")
        given = {k: v for k, v in values.items() if k in known}
        given |= {k: math.inf for k in BUDGETS if given.get(k) is None}
        return cls(**given)


def _has(device: str) -> bool:
    import torch  # here, so that command-line help needs no torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True
