"""The flags of every command, as frozen dataclasses, and how a result is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from reverie.cli.bridge_flags import Bridge as Bridge
from reverie.cli.common_flags import Common as Common
from reverie.cli.common_flags import OfRun as OfRun
from reverie.cli.common_flags import Spread as Spread
from reverie.cli.doctor_flags import Completion as Completion
from reverie.cli.doctor_flags import Doctor as Doctor
from reverie.cli.rank_flags import Rank as Rank
from reverie.cli.reads import Reads
from reverie.cli.sweep_flags import Sweep as Sweep
from reverie.cli.target_flags import MaxCut as MaxCut
from reverie.cli.target_flags import TargetOf as TargetOf
from reverie.reproduce import RESULTS
from reverie.runs.config import FitConfig
from reverie.runs.runtime import Runtime

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class Fit:
    """Fit a diffusion model to your data and write a run directory.

    Rows are held out by default, so that the run can be audited. Kill it, or press Ctrl-C, and
    --resume continues to the same weights.

    Example: reverie fit digits --out runs/digits --n 1000 --stop-on-leak
    """

    data: Positional[str | None] = None
    """A .npy, .npz (FILE.npz:KEY), .csv, .tsv, .parquet, .feather, .xlsx, .mat, .txt (every line a
    row) or idx file, FILE.sqlite:SELECT ..., a Zarr array, a folder of images, shards of .tar
    (their folder, or SHARDS/{000..099}.tar), or a built-in set: digits, wine, breast-cancer,
    fashion-mnist. What does not fit into memory is read from disk in pieces (--stored)."""
    out: Path = Path("run")
    """The run directory to create."""
    condition: str | None = None
    """What the model is told about each row: a column, which is taken out of the rows, or a file
    with a row for each (.npy, .csv, .txt). Categories, and few whole numbers, are labels."""
    resume: bool = False
    """Continue the run in --out, with the settings it was started with. Processes, compilation
    and trackers are those of this command."""
    config: tyro.conf.OmitArgPrefixes[FitConfig] = field(default_factory=FitConfig)
    """Settings; they are saved in the run's config.json."""
    runtime: tyro.conf.OmitArgPrefixes[Runtime] = field(default_factory=Runtime)
    """How it runs; a run resumes with other ones."""
    reads: tyro.conf.OmitArgPrefixes[Reads] = field(default_factory=Reads)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


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
    plan: str | None = None
    """Where the steps lie: loss-adaptive (the default), entropic-log-snr (the default for heun),
    log-snr (the default for dpm++2m), rescaled-entropic, karras, cosine, linear, quadratic,
    entropic, tangent, density, score-optimal, step-optimised, align-your-steps, or its published
    tables ays-sd, ays-sdxl and ays-svd."""
    clock: str | None = None
    """What the loss-adaptive plan charges: samples (what one sees; the default) or nats
    (likelihood)."""
    sampler: str | None = None
    """ancestral (the default), ddim, heun, dpm++2m, dpm++2s, sde-dpm++2m, unipc-1, unipc-2,
    unipc-3, er-sde-1, er-sde-2, er-sde-3, exponential-euler, predictor-corrector, or ode (adaptive
    steps between the plan's ends; needs torchdiffeq). Of mixed tables: heun (the default there;
    2 K + 1 evaluations), ddim or ancestral. Of symbols: ancestral, tau-leaping, gillespie or
    (masking) first-hitting; of manifolds: ancestral or predictor-corrector; of damped noise:
    ancestral, sscs, sscs-midpoint or euler-maruyama."""
    out: Path = Path("samples.npy")
    """Where to: .npy, .npz, .csv, .parquet, .xlsx (extra), .txt (text), or a folder of PNGs (no
    ending)."""
    given: tuple[str, ...] = ()
    """What the model is told, of a run with a condition: a label by its name, or numbers joined by
    commas; NAME=VALUE is understood too. Without it the samples follow the conditions of the
    training rows. Of a run on a mixed table: cells that all samples have, as diagnosis=B, joined
    by blanks; categories, few-valued numbers, atoms and missing cells (diagnosis=)."""
    calibrate: bool = True
    """Where the model is worse than the linear guess at some noise levels, draw from the mixture
    of both (fitted on held-out rows, once, and kept with the run); --no-calibrate does not."""
    reject_copies: bool = False
    """Refuse samples that nearly reproduce a training row (they lie within a third of the way to
    its nearest other), and draw anew, up to 20 times as many as asked for. The hole that this
    leaves around training rows is measured and said."""
    fill_holes: bool = False
    """With --reject-copies: refuse only near-copies beyond what held-out rows have by chance, so
    that no hole around a training row gives it away."""
    seed: int = 0
    """The same seed draws the same samples."""
    batch_size: int = 4096
    """Samples drawn at once, in blocks with noise of their own, which go to workers. It belongs to
    the seed: another block draws other samples."""
    device: str = "cpu"
    """cpu or cuda; with --jobs workers take the devices in turn. Samples of another kind of device
    are others."""
    spread: tyro.conf.OmitArgPrefixes[Spread] = field(default_factory=Spread)
    of_run: tyro.conf.OmitArgPrefixes[OfRun] = field(default_factory=OfRun)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


@dataclass(frozen=True)
class Audit:
    """Ask whether a generator copies its training rows; write a page and JSON.

    Give a run, or the three sets of any generator at all: arrays, images, or tables of numbers,
    categories and missing cells. The finding is unfair (the sets are not alike), copies, exposes
    (one can tell who was in the training set), leans, none or inconclusive, with what was counted,
    exact p-values and what would have been seen. It begins with the split: rows that stand in both
    training and held-out data. Without --samples it does just that, and writes split.html.

    Example: reverie audit runs/digits --fail-on unfair,copies,exposes
    Example: reverie audit --train a.csv --holdout b.csv --samples c.csv --out audit
    Example: reverie audit --train a.csv --holdout b.csv --write-clean clean
    """

    run: Positional[Path | None] = None
    """A run directory (instead of the three sets)."""
    train: str | None = None
    """Rows the generator was trained on."""
    holdout: str | None = None
    """Rows of the same source that it has not seen."""
    samples: str | None = None
    """Rows it generated."""
    group: str | None = None
    """A column (a person, say) whose rows belong together; it is not compared itself."""
    features: str | None = None
    """Compare in features of your own: a .npz with arrays train, holdout and samples, or
    package.module:function, from rows to an array (n, f)."""
    space: str | None = None
    """Where the rows live, if they are no vectors: symbols, sphere (latitude and longitude in
    degrees, or unit vectors), torus, rotations, hyperbolic, or a manifold, as Sphere(2)."""
    write_clean: Path | None = None
    """A new folder for the split without duplicates, and the samples without near-copies."""
    n: int = 2000
    """With a run: how many samples to draw."""
    steps: int = 20
    """With a run: steps of the sampler."""
    plan: str | None = None
    """With a run: where the steps lie, as in `reverie sample`. The samples are of the model
    itself, without calibration."""
    sampler: str | None = None
    """With a run: the sampler, as in `reverie sample`."""
    cycles: int = 0
    """With a run: so many rounds of noising and denoising its samples (100, say), which bring out
    rows that it holds but does not draw. An extraction tool."""
    retrain: int = 0
    """With a run: train this many models of its settings on disjoint rows (the same command
    continues; --jobs and --on share them out), and bound from below what a sample tells about the
    training set."""
    alpha: float = 0.05
    """Level of the decision, over all tests together."""
    tol: float = 0.05
    """Share of the samples by which an honest model may lean towards its training rows."""
    randomised: bool = False
    """Make the size of the tail test --alpha itself, by a seeded draw (its law is discrete)."""
    fail_on: tuple[str, ...] = ()
    """Findings that make the command exit with 1, joined by commas or blanks; recommended:
    unfair,copies,exposes. Also: leans, none, inconclusive."""
    leak_budget: float | None = None
    """Nats: a leak surely beyond it is `exposes`."""
    products: bool = False
    """Of pictures: search pairs of changes too (mirrored and brightened, say); slow."""
    out: Path | None = None
    """Folder for audit.html and audit.json, or split.html and split.json (default: the run, or
    ./audit)."""
    seed: int = 0
    """Seed of samples, ties and plantings."""
    spread: tyro.conf.OmitArgPrefixes[Spread] = field(default_factory=Spread)
    of_run: tyro.conf.OmitArgPrefixes[OfRun] = field(default_factory=OfRun)
    reads: tyro.conf.OmitArgPrefixes[Reads] = field(default_factory=Reads)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


@dataclass(frozen=True)
class PlanSteps:
    """Choose the levels of a K-step sampler from a model's loss curve; compare all schedules.

    Prints what every schedule adds to the path KL, the number of steps for a budget and what
    certifies it; writes plan.html, plan.json and the levels as plain text (plan-K.txt).

    Example: reverie plan runs/digits --steps 5,10,20 --budget 10
    Example: reverie plan pipelines/faces --data faces/ --steps 10 --out plan
    """

    model: Positional[Path]
    """A run directory, or a directory of a diffusers model or pipeline (with --data)."""
    steps: str = "10"
    """Steps of the sampler, one number or several: 5,10,20."""
    sampler: str = "ancestral"
    """The sampler it is for, or several with --draw: ancestral,ddim. Path KL and certificates are
    of the ancestral one."""
    budget: float | None = None
    """Nats that the schedule may add: tells how many steps do."""
    plan: str | None = None
    """The plan to print in full; all others stand beside it (default: loss-adaptive)."""
    clock: str | None = None
    """What the loss-adaptive plan charges: samples (what one sees; the default, where the curve
    has that clock) or nats (likelihood: the least path KL of the ancestral sampler)."""
    calibrate: bool = True
    """Where the model is worse than a linear guess, mix it with that guess and plan for the
    calibrated model (written to OUT/calibration). The guard's sentences are printed anyhow."""
    draw: int | None = None
    """So many samples at a time: tells, for each sampler, the fewest steps whose samples cannot be
    told from samples at four times as many."""
    ends: bool = False
    """Choose sigma_max, sigma_min and the law of training levels from the rows; print why."""
    data: str | None = None
    """Rows to measure a diffusers model on. Whole pixels from 0 to 255 are mapped to [-1, 1];
    other values are taken as the model's own."""
    out: Path | None = None
    """Folder for the files (default: the run, or ./plan)."""
    of_run: tyro.conf.OmitArgPrefixes[OfRun] = field(default_factory=OfRun)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


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
    of_run: tyro.conf.OmitArgPrefixes[OfRun] = field(default_factory=OfRun)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


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
    reads: tyro.conf.OmitArgPrefixes[Reads] = field(default_factory=Reads)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


@dataclass(frozen=True)
class Describe:
    """Say what is made of DATA: the kind, range, unit and missing cells of every column.

    Example: reverie describe patients.csv --out columns.json
    """

    data: Positional[str]
    """Whatever the other commands take; also db.sqlite:SELECT ..."""
    out: Path | None = None
    """Where to write it; edit its kinds, and give it to any command with --columns."""
    reads: tyro.conf.OmitArgPrefixes[Reads] = field(default_factory=Reads)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


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
    of_run: tyro.conf.OmitArgPrefixes[OfRun] = field(default_factory=OfRun)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


@dataclass(frozen=True)
class Reproduce:
    """Make a published result again: a figure and a table, our number beside the published one.

    Each takes seconds to minutes (step-schedules an hour).

    Example: reverie reproduce linear-generalisation
    """

    name: Annotated[Positional[str], tyro.conf.arg(help=f"One of: {', '.join(RESULTS)}.")]
    out: Path | None = None
    """Folder to write to (default: reproduce/NAME)."""
    full: bool = False
    """The slow version, where there is one."""
    seed: int = 0
    """Seed of the simulations."""
    spread: tyro.conf.OmitArgPrefixes[Spread] = field(default_factory=Spread)
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


@dataclass(frozen=True)
class Demo:
    """Fit, audit and plan three models of real digits; write demo/report.html (about 2 minutes).

    Example: reverie demo --out demo
    """

    out: Path = Path("demo")
    """Folder for report.html and report.json."""
    seed: int = 0
    """The same seed gives the same report.json."""
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


def _named(kind: type, name: str) -> Any:
    return Annotated[kind, tyro.conf.subcommand(name)]


Command = (
    _named(Fit, "fit")
    | _named(Sample, "sample")
    | _named(Audit, "audit")
    | _named(PlanSteps, "plan")
    | _named(Compare, "compare")
    | _named(Rank, "rank")
    | _named(Predict, "predict")
    | _named(Describe, "describe")
    | _named(Sweep, "sweep")
    | _named(Export, "export")
    | _named(Bridge, "bridge")
    | _named(TargetOf, "target")
    | _named(MaxCut, "maxcut")
    | _named(Demo, "demo")
    | _named(Reproduce, "reproduce")
    | _named(Doctor, "doctor")
    | _named(Completion, "completion")
)


def print_result(command: Any, text: str, data: dict[str, Any]) -> None:
    """Print a result for people, or with --json for machines."""
    print(json.dumps(data, indent=1) if command.common.json else text)
