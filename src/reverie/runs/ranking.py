"""Which of somebody's checkpoints to keep, and which leak: their curves, side by side.

Every checkpoint is put into the one module that the user's own function builds, and its curve is
measured on held-out and on training rows with the same noise, so that differences between
checkpoints are paired. An average over all noise levels, as training losses are, says little: most
of it is the part that no model can know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reverie.curve import Gap, Leak, LossCurve, measure
from reverie.data.rows import some_rows
from reverie.denoisers import Denoiser
from reverie.denoisers.rates import NotFiniteError
from reverie.errors import InputError

ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
PREFIXES = ("", "module.", "_orig_mod.", "model.", "module._orig_mod.", "net.", "unet.")
LEVELS, ROWS = 32, 1000
Weights = dict[str, Tensor]
Ticker = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Ranked:
    """A checkpoint: nats on held-out rows, its leak, and what it costs beyond the best one.

    name: its file, and the part of it. leak: None without held-out rows. behind: held-out nats
    more than the best, with the interval of the paired differences; None for the best. leaks: is
    the lower end of the leak above the budget.
    """

    name: str
    nats: float
    stderr: float
    leak: Leak | None
    behind: Gap | None
    leaks: bool
    curves: dict[str, LossCurve]

    @property
    def tied(self) -> bool:
        """Whether it is not surely worse than the best."""
        return self.behind is None or self.behind.low <= 0

    def to_json(self) -> dict[str, Any]:
        """Plain values; the curves without their samples."""
        return {
            "name": self.name,
            "nats": self.nats,
            "stderr": self.stderr,
            "leak": None if self.leak is None else asdict(self.leak),
            "behind": None if self.behind is None else asdict(self.behind),
            "tied": self.tied,
            "leaks": self.leaks,
            "curves": {name: {k: v for k, v in curve.to_json().items() if k != "covariance"}
                       for name, curve in self.curves.items()},
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ranking:
    """Checkpoints in the order of their names' numbers; `skipped` says why others are not here."""

    checkpoints: list[Ranked]
    held_out: bool  # whether nats are of rows that no checkpoint was trained on
    leak_budget: float
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Ranked:
        """The checkpoint that knows the rows best."""
        return min(self.checkpoints, key=lambda one: one.nats)

    @property
    def keep(self) -> Ranked:
        """Of those that are not surely worse than the best, the one that leaks least."""
        tied = [one for one in self.checkpoints if one.tied]
        if not self.held_out:
            return self.best
        return min(tied, key=lambda one: one.leak.nats if one.leak is not None else math.inf)

    def sentences(self) -> list[str]:
        """What to keep and which leak."""
        keep, best = self.keep, self.best
        said = [f"keep {keep.name}: {keep.nats:.4g} nats a row"]
        if keep is not best and keep.behind is not None:
            said[0] += (
                f"; {best.name} has {keep.behind.nats:.2g} less "
                f"[{keep.behind.low:.2g}, {keep.behind.high:.2g}], which is no clear difference, "
                "and leaks more"
            )
        if not self.held_out:
            return [*said, "without held-out rows (--holdout) a copy looks best: no leak is known"]
        leaking = [one.name for one in self.checkpoints if one.leaks]
        above = f"surely leak more than {self.leak_budget:g} nats"
        said.append(f"{above}: {', '.join(leaking)}" if leaking else f"none would {above}")
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "keep": self.keep.name,
            "best": self.best.name,
            "held_out": self.held_out,
            "leak_budget": self.leak_budget,
            "sentences": self.sentences(),
            "checkpoints": [one.to_json() for one in self.checkpoints],
            "skipped": self.skipped,
        }


def rank(
    folder: str | Path,
    build: Callable[[], Any],
    as_model: Callable[[nn.Module], Denoiser],
    rows: Tensor,
    holdout: Tensor | None = None,
    *,
    levels: int = LEVELS,
    most: int = ROWS,
    leak_budget: float = 0.0,
    seed: int = 0,
    progress: Ticker | None = None,
) -> Ranking:
    """Measure all checkpoints of a folder (or one file) in the module that `build()` makes.

    as_model: makes that module a Denoiser. rows, holdout: (n, *shape) as the module sees them:
    what the checkpoints were trained on, and what they have not seen (None: no leak is known).
    most: of each, measured. Raises InputError on no checkpoint, or none that fits the module.
    """
    files = checkpoint_files(Path(folder))
    module = build()
    if not isinstance(module, nn.Module):
        raise InputError(f"--model returned {type(module).__name__}; it must return a module")
    denoiser = module if isinstance(module, Denoiser) else as_model(module)
    sets = {"train": rows} if holdout is None else {"train": rows, "holdout": holdout}
    sets = {name: some_rows(points, most, seed) for name, points in sets.items()}
    measured: dict[str, dict[str, LossCurve]] = {}
    skipped: dict[str, str] = {}
    for index, path in enumerate(files):
        name = str(path.relative_to(folder)) if path != Path(folder) else path.name
        try:
            for part, weights in parts_of(path, set(module.state_dict())):
                module.load_state_dict(weights)
                measured[f"{name}{part}"] = _curves(denoiser, sets, levels, seed)
        except NotFiniteError as error:
            skipped[name] = str(error)
        except (InputError, RuntimeError) as error:
            skipped[name] = str(error).splitlines()[-1].strip()  # torch heads a list of them
        if progress is not None:
            progress(index + 1, len(files))
    if not measured:
        first, why = next(iter(skipped.items()))
        raise InputError(f"no checkpoint of {folder} could be measured; {first}: {why}")
    return _ranking(measured, holdout is not None, leak_budget, skipped)


def _curves(
    denoiser: Denoiser, sets: Mapping[str, Tensor], levels: int, seed: int
) -> dict[str, LossCurve]:
    kinds = {"train": "training rows", "holdout": "held-out rows"}
    return {
        name: measure(
            denoiser, points, levels, generator=torch.Generator().manual_seed(seed),
            keep_samples=True, label=f"model on {kinds[name]}",
        )
        for name, points in sets.items()
    }  # fmt: skip


def _ranking(
    measured: dict[str, dict[str, LossCurve]],
    held_out: bool,
    leak_budget: float,
    skipped: dict[str, str],
) -> Ranking:
    judged = "holdout" if held_out else "train"
    best = min(measured, key=lambda name: measured[name][judged].area())
    found = []
    for name, curves in measured.items():
        curve = curves[judged]
        leak = curves["train"].leak(curves["holdout"]) if held_out else None
        behind = None if name == best else measured[best][judged].gap(curve)
        leaks = leak is not None and leak.low > leak_budget
        error = curve.area_stderr() or 0.0
        found.append(Ranked(name, curve.area(), error, leak, behind, leaks, curves))
    return Ranking(found, held_out, leak_budget, skipped)


# --- files ---------------------------------------------------------------------------------------


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder and below it, by the numbers in their names.

    InputError where there is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: give a folder of checkpoints")
    found = [path for path in folder.rglob("*") if path.suffix in ENDINGS and path.is_file()]
    if not found:
        raise InputError(f"{folder} holds no checkpoint: no file ends in {', '.join(ENDINGS)}")
    return sorted(found, key=lambda path: _natural(str(path.relative_to(folder))))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """step2 before step10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def parts_of(path: Path, wanted: set[str]) -> Iterator[tuple[str, Weights]]:
    """(name of the part, weights) of every set of weights of the module in a file.

    A file may hold several, as an average beside the last step. Nothing is unpickled beyond
    tensors and plain containers. Raises InputError where none has all of `wanted`.
    """
    found = False
    least = wanted
    for part, tensors in _dicts(read_weights(path)):
        for prefix in PREFIXES:
            weights = {
                key.removeprefix(prefix): value
                for key, value in tensors.items()
                if key.startswith(prefix) and key.removeprefix(prefix) in wanted
            }
            missing = wanted - set(weights)
            least = missing if len(missing) < len(least) else least
            if not missing:
                found = True
                yield part, weights
                break
    if not found:
        few = ", ".join(sorted(least)[:3])
        more = f" and {len(least) - 3} more" if len(least) > 3 else ""
        raise InputError(f"its weights are not those of the module: it lacks {few}{more}")


def read_weights(path: Path) -> Any:
    """What a file of weights holds: safetensors, or tensors and plain containers of torch.

    Raises InputError on a broken file and on one that would have to be unpickled.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"it cannot be read ({str(error).splitlines()[0]})") from error
    except Exception as error:  # pickle's own and torch's
        raise InputError(
            "it holds more than tensors, or is broken, and nothing is unpickled here: save its "
            "state_dict as safetensors"
        ) from error


def _dicts(value: Any, name: str = "", depth: int = 3) -> Iterator[tuple[str, Weights]]:
    """All dictionaries in a checkpoint that hold tensors, with their place as `:key`."""
    if not isinstance(value, Mapping):
        return
    tensors = {str(k): v for k, v in value.items() if isinstance(v, Tensor)}
    if tensors:
        yield name, tensors
    if depth:
        for key, inner in value.items():
            yield from _dicts(inner, f"{name}:{key}", depth - 1)
