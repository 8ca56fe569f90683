"""Densities without data: an unnormalised log density is all that is known.

    from reverie.targets import sample
    run = sample(log_density, dim)        # .samples, .log_z, .elbo, .ess, .sentences()

Every method is a pair of Markov chains whose log weights are normalised: E exp(log w) = Z whatever
its parameters are.

Names are loaded when first used, so that `import reverie.targets` costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie import lazily as _lazily

_HOMES = {
    "AnnealedLayer": "reverie.targets.learned",
    "Annealing": "reverie.targets.annealing",
    "Chain": "reverie.targets.pair",
    "CoxProcess": "reverie.targets.known",
    "ConditionalTarget": "reverie.targets.target",
    "DiffusionLayer": "reverie.targets.stochastic",
    "FlowLayer": "reverie.targets.stochastic",
    "StochasticFlow": "reverie.targets.stochastic",
    "VAELayer": "reverie.targets.stochastic",
    "stochastic_flow": "reverie.targets.stochastic",
    "Funnel": "reverie.targets.known",
    "Gaussian": "reverie.targets.known",
    "GaussianStart": "reverie.targets.starts",
    "Islands": "reverie.targets.smc",
    "Known": "reverie.targets.known",
    "Layer": "reverie.targets.pair",
    "LogZ": "reverie.targets.estimate",
    "LogisticRegression": "reverie.targets.known",
    "METHODS": "reverie.targets.run",
    "LongRun": "reverie.targets.chains",
    "ManyWell": "reverie.targets.known",
    "Mixture": "reverie.targets.known",
    "PathPair": "reverie.targets.pair",
    "Point": "reverie.targets.target",
    "ReversibleLayer": "reverie.targets.kernels",
    "Rollout": "reverie.targets.pair",
    "SMC": "reverie.targets.smc",
    "StudentMixture": "reverie.targets.known",
    "Target": "reverie.targets.target",
    "TargetRun": "reverie.targets.run",
    "ULALayer": "reverie.targets.kernels",
    "anneal": "reverie.targets.annealing",
    "forty_gaussians": "reverie.targets.known",
    "learned_pair": "reverie.targets.learned",
    "log_z_of_islands": "reverie.targets.estimate",
    "log_z_of_weights": "reverie.targets.estimate",
    "long_run": "reverie.targets.chains",
    "mode_coverage": "reverie.targets.known",
    "mode_shares": "reverie.targets.known",
    "sample": "reverie.targets.run",
    "train": "reverie.targets.training",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


__getattr__ = _lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from reverie.targets.annealing import Annealing as Annealing
    from reverie.targets.annealing import anneal as anneal
    from reverie.targets.chains import LongRun as LongRun
    from reverie.targets.chains import long_run as long_run
    from reverie.targets.estimate import LogZ as LogZ
    from reverie.targets.estimate import log_z_of_islands as log_z_of_islands
    from reverie.targets.estimate import log_z_of_weights as log_z_of_weights
    from reverie.targets.kernels import ReversibleLayer as ReversibleLayer
    from reverie.targets.kernels import ULALayer as ULALayer
    from reverie.targets.known import CoxProcess as CoxProcess
    from reverie.targets.known import Funnel as Funnel
    from reverie.targets.known import Gaussian as Gaussian
    from reverie.targets.known import Known as Known
    from reverie.targets.known import LogisticRegression as LogisticRegression
    from reverie.targets.known import ManyWell as ManyWell
    from reverie.targets.known import Mixture as Mixture
    from reverie.targets.known import StudentMixture as StudentMixture
    from reverie.targets.known import forty_gaussians as forty_gaussians
    from reverie.targets.known import mode_coverage as mode_coverage
    from reverie.targets.known import mode_shares as mode_shares
    from reverie.targets.learned import AnnealedLayer as AnnealedLayer
    from reverie.targets.learned import learned_pair as learned_pair
    from reverie.targets.pair import Chain as Chain
    from reverie.targets.pair import Layer as Layer
    from reverie.targets.pair import PathPair as PathPair
    from reverie.targets.pair import Rollout as Rollout
    from reverie.targets.run import METHODS as METHODS
    from reverie.targets.run import TargetRun as TargetRun
    from reverie.targets.run import sample as sample
    from reverie.targets.smc import SMC as SMC
    from reverie.targets.smc import Islands as Islands
    from reverie.targets.starts import GaussianStart as GaussianStart
    from reverie.targets.stochastic import DiffusionLayer as DiffusionLayer
    from reverie.targets.stochastic import FlowLayer as FlowLayer
    from reverie.targets.stochastic import StochasticFlow as StochasticFlow
    from reverie.targets.stochastic import VAELayer as VAELayer
    from reverie.targets.stochastic import stochastic_flow as stochastic_flow
    from reverie.targets.target import ConditionalTarget as ConditionalTarget
    from reverie.targets.target import Point as Point
    from reverie.targets.target import Target as Target
    from reverie.targets.training import train as train
