"""The flags of `reverie target` and `reverie maxcut`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from reverie.cli.common_flags import Common

Positional = tyro.conf.Positional


@dataclass(frozen=True)
class TargetOf:
    """Draw from an unnormalised density and tell its normalising constant.

    Writes samples.npy, target.json and target.html. The function takes points as a torch tensor
    (n, dim) of float64 and answers (n,), the log density up to a constant. Only the module that
    you name is imported.

    Example: reverie target mycode.posterior:log_density --dim 10 --out posterior
    """

    log_density: Positional[str]
    """package.module:function, or an object with a `.dim`."""
    dim: int | None = None
    """Coordinates of a point (default: the function's own .dim)."""
    out: Path = Path("target")
    """The folder to create."""
    method: str = "smc"
    """smc (resampled in independent islands), ais, or learned: mcd, uha, cmcd, dds, dis, pis, dbs,
    scld, and snf, a stochastic normalizing flow."""
    n: int = 4096
    """How many samples."""
    steps: int | None = None
    """Steps of the path (default: planned on the path's own curve; 64 for learned methods; of snf
    how often its layers stand, 8)."""
    layers: str | None = None
    """Of snf: words among flow, mala, langevin, vae and diffusion, each with *N for N of them, as
    "flow*2 mala" (default: "flow mala")."""
    start: str | None = None
    """The Gaussian to start from: a deviation, or mean,deviation (default: found by a pilot)."""
    kernel: str | None = None
    """Of smc and ais: hmc (the default), mala, random-walk (needs no gradient), and of ais ula."""
    gradient: str | None = None
    """package.module:function, the gradient (n, dim) (default: by autograd)."""
    loss: str | None = None
    """Of learned methods: log-variance (the default) or reverse-kl (the default of snf)."""
    training: int = 1000
    """Training steps of learned methods."""
    seed: int = 0
    """The same seed gives the same samples."""
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


@dataclass(frozen=True)
class MaxCut:
    """Cut a graph in two: the bound of its semidefinite program with a certificate, and a cut.

    Langevin dynamics on a product of spheres finds the program's optimum; a dual certificate says
    how far it is from it, and rounding gives a cut.

    Example: reverie maxcut graph.txt --out cut.json
    """

    graph: Positional[Path]
    """A graph: a G-set file (nodes and edges in the first line, nodes from 1), an edge list (two
    names and perhaps a weight a line), or what NetworkX writes as .graphml, .gml or .gexf."""
    rank: int | None = None
    """Coordinates of a node's vector (default: the least without spurious optima)."""
    accuracy: float = 1e-4
    """Relative gap to the certificate at which it stops."""
    roundings: int = 200
    """Random hyperplanes, each followed by greedy moves of single nodes."""
    out: Path | None = None
    """A file for the result as JSON, with the side of every node."""
    seed: int = 0
    """The same seed gives the same cut."""
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)
