"""The command line: the library's calls, with progress, summaries and one-sentence errors.

Exit codes: 0 done, 1 `audit --fail-on` found what it was told to, 2 bad input,
3 a fault of the program, 130 Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

# Threads that spin while they wait stall one another when the cores are shared: everything then
# runs ten times slower. This must stand before torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from reverie.config import FitConfig
from reverie.errors import InputError

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Common:
    """Flags that every command has."""

    quiet: bool = False
    """Print nothing but the result (and errors)."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Fit:
    """Fit a diffusion model to your data and write a run directory.

    Rows are held out by default, so that the run can be audited. Kill it, or press Ctrl-C, and
    --resume continues to the same weights.

    Example: reverie fit digits --out runs/digits --n 1000 --stop-on-leak
    """

    data: Positional[str | None] = None
    """A .npy, .npz (FILE.npz:KEY), .csv, .parquet or idx file, a folder of images, or a built-in
    set: digits, wine, breast-cancer, fashion-mnist."""
    out: Path = Path("run")
    """The run directory to create."""
    resume: bool = False
    """Continue the run in --out, with the settings it was started with."""
    config: tyro.conf.OmitArgPrefixes[FitConfig] = field(default_factory=FitConfig)
    """Settings; they are saved in the run's config.json."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class Sample:
    """Draw samples from a run, in the data's own units, header and type.

    Example: reverie sample runs/digits --n 500 --steps 20 --out digits.npy
    """

    run: Positional[Path]
    """A run directory."""
    n: int = 100
    """How many samples."""
    steps: int = 20
    """Steps of the sampler (K steps take K + 1 evaluations, heun and dpm++2s 2K + 1)."""
    plan: str = "rescaled-entropic"
    """Where the steps lie: loss-adaptive, rescaled-entropic, karras, log-snr, cosine, linear,
    quadratic, entropic, tangent or density."""
    clock: str = "nats"
    """What the loss-adaptive plan charges: nats (likelihood) or samples (what one sees)."""
    sampler: str = "ancestral"
    """ancestral, ddim, heun, dpm++2m, dpm++2s, sde-dpm++2m, unipc-1, unipc-2, unipc-3, er-sde-1,
    er-sde-2, er-sde-3, exponential-euler, predictor-corrector, or ode (adaptive steps between the
    plan's ends; needs torchdiffeq)."""
    out: Path = Path("samples.npy")
    """Where to: .npy, .npz, .csv, .parquet, or a folder of PNGs (no ending)."""
    seed: int = 0
    """The same seed draws the same samples."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class Audit:
    """Ask whether a generator copies its training rows; write a page and JSON.

    Give a run, or the three sets of any generator at all. The verdict is copies, dependence, none
    or inconclusive, with exact p-values and what it would have caught.

    Example: reverie audit runs/digits --fail-on copies
    Example: reverie audit --train a.csv --holdout b.csv --samples c.csv --out audit
    """

    run: Positional[Path | None] = None
    """A run directory (instead of the three sets)."""
    train: str | None = None
    """Rows the generator was trained on."""
    holdout: str | None = None
    """Rows of the same source that it has not seen."""
    samples: str | None = None
    """Rows it generated."""
    n: int = 2000
    """With a run: how many samples to draw."""
    steps: int = 20
    """With a run: steps of the sampler."""
    plan: str = "rescaled-entropic"
    """With a run: where the steps lie."""
    sampler: str = "ancestral"
    """With a run: the sampler, as in `reverie sample`."""
    alpha: float = 0.05
    """Level of the decision, over all tests together."""
    fail_on: tuple[str, ...] = ()
    """Findings that make the command exit with 1: copies, dependence, none, inconclusive."""
    out: Path | None = None
    """Folder for audit.html and audit.json (default: the run, or ./audit)."""
    seed: int = 0
    """Seed of samples, ties and plantings."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class PlanSteps:
    """Choose the levels of a K-step sampler from a run's loss curve; compare all schedules.

    Prints the excess path KL of every plan in nats; writes plan.html and plan.json into the run.

    Example: reverie plan runs/digits --steps 10
    """

    run: Positional[Path]
    """A run directory."""
    steps: int = 10
    """Steps of the sampler."""
    plan: str = "loss-adaptive"
    """The plan to print in full; all others stand beside it."""
    clock: str = "nats"
    """What the loss-adaptive plan charges: nats (likelihood) or samples (what one sees)."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class Compare:
    """Set two runs side by side on the rows that both held out.

    Example: reverie compare runs/a runs/b
    """

    first: Positional[Path]
    """A run directory."""
    second: Positional[Path]
    """Another, fitted on the same data."""
    seed: int = 0
    """Seed of the noise that both are measured with."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class Predict:
    """How much data do you need? A forecast from the data's own spectrum, before any training.

    Predicts what a linear diffusion model would cost on training and on fresh rows, how its KL
    falls with the number of rows, and what weight decay or early stopping would buy. Writes
    predict.html and predict.json.

    Example: reverie predict digits --n 500
    """

    data: Positional[str]
    """A .npy, .npz, .csv or .parquet file, a folder of images, or a built-in set."""
    n: int | None = None
    """Training rows to forecast for (default: all that fit would not hold out)."""
    budget: float = 0.1
    """Nats of KL per dimension that are good enough."""
    ridge: float = 0.05
    """Weight decay of the linear model, in units of the mean variance."""
    run: Path | None = None
    """A fitted run on the same data, to set its network beside the forecast."""
    out: Path = Path("predict")
    """Folder for predict.html and predict.json."""
    seed: int = 0
    """Seed of the split."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class Export:
    """Write a U-Net run as a pipeline folder of diffusers, with a model card.

    The card carries the audit's verdict, if the run was audited, and the plan of its steps.

    Example: reverie export runs/digits --out digits-pipeline
    """

    run: Positional[Path]
    """A run directory, fitted with --network unet."""
    out: Path = Path("pipeline")
    """The folder to create."""
    license: str = "unknown"
    """What the model card says, as mit or cc-by-4.0."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class Reproduce:
    """Make a published result again: a figure and a table, our number beside the published one.

    Names: linear-generalisation, hidden-gaussian, dynamical-regimes, implicit-regularisation,
    random-features, analytic-creativity, earth, torsions. Each takes seconds to minutes.

    Example: reverie reproduce linear-generalisation
    """

    name: Positional[str]
    """Which result."""
    out: Path | None = None
    """Folder to write to (default: reproduce/NAME)."""
    full: bool = False
    """The slow version, where there is one."""
    seed: int = 0
    """Seed of the simulations."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


@dataclass(frozen=True)
class Demo:
    """Fit, audit and plan three models of real digits; write demo/report.html (about 2 minutes).

    Example: reverie demo --out demo
    """

    out: Path = Path("demo")
    """Folder for report.html and report.json."""
    seed: int = 0
    """The same seed gives the same report.json."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()


def _named(kind: type, name: str) -> Any:
    return Annotated[kind, tyro.conf.subcommand(name)]


Command = (
    _named(Fit, "fit")
    | _named(Sample, "sample")
    | _named(Audit, "audit")
    | _named(PlanSteps, "plan")
    | _named(Compare, "compare")
    | _named(Predict, "predict")
    | _named(Export, "export")
    | _named(Demo, "demo")
    | _named(Reproduce, "reproduce")
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `reverie`; raises SystemExit with the documented codes."""
    command: Any = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="reverie",
        description="Diffusion models, and the loss curve that tells whether they copy their "
        "training data, and how many steps they need.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    from reverie import commands

    run = {
        Fit: commands.fit,
        Sample: commands.sample,
        Audit: commands.audit,
        PlanSteps: commands.plan,
        Compare: commands.compare,
        Predict: commands.predict,
        Export: commands.export,
        Demo: commands.demo,
        Reproduce: commands.reproduce,
    }[type(command)]
    commands.TYPED[:] = ["reverie", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        if getattr(command, "seed", 0) < 0:
            raise InputError(f"--seed is {command.seed}; it must not be negative")
        code = run(command, commands.Console(command.common.quiet or command.common.json))
    except InputError as error:
        print(f"reverie: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("reverie: stopped", file=sys.stderr)
        code = 130
    except Exception as error:
        if os.environ.get("REVERIE_DEBUG"):
            raise
        kind = type(error).__name__
        print(
            f"reverie: this is a fault of the program, not of your input ({kind}: {error}); "
            "REVERIE_DEBUG=1 shows where",
            file=sys.stderr,
        )
        code = 3
    sys.exit(code)


def print_result(command: Any, text: str, data: dict[str, Any]) -> None:
    """Print a result for people, or with --json for machines."""
    print(json.dumps(data, indent=1) if command.common.json else text)


if __name__ == "__main__":
    main()
