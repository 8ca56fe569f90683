"""Who guesses: exact optima, trained networks, and wrappers of other people's models."""

from reverie import lazily as _lazily
from reverie.denoisers.base import Denoiser as Denoiser
from reverie.denoisers.base import evaluating as evaluating
from reverie.denoisers.conversions import PREDICTIONS as PREDICTIONS
from reverie.denoisers.conversions import convert as convert
from reverie.denoisers.exact.adaptive_mixture import AdaptiveMixture as AdaptiveMixture
from reverie.denoisers.exact.dirichlet_mixture import DirichletMixture as DirichletMixture
from reverie.denoisers.exact.gaussian_mixture import GaussianMixture as GaussianMixture
from reverie.denoisers.exact.kernel_mixture import KernelMixture as KernelMixture
from reverie.denoisers.exact.linear import Linear as Linear
from reverie.denoisers.exact.linear_of import linear_of as linear_of
from reverie.denoisers.exact.low_rank import LowRankLinear as LowRankLinear
from reverie.denoisers.exact.low_rank import Moments as Moments
from reverie.denoisers.exact.low_rank import Seen as Seen
from reverie.denoisers.exact.memoriser import Memoriser as Memoriser
from reverie.denoisers.exact.mixed_mixture import MixedMixture as MixedMixture
from reverie.denoisers.exact.transferred import Transferred as Transferred
from reverie.denoisers.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
from reverie.denoisers.guidance import ClassifierGuidance as ClassifierGuidance
from reverie.denoisers.joint import JointConditional as JointConditional
from reverie.denoisers.joint import annealed_level as annealed_level
from reverie.denoisers.joint import speed_to as speed_to
from reverie.denoisers.networks.choice import network_for as network_for
from reverie.denoisers.networks.conditions import Labels as Labels
from reverie.denoisers.networks.conditions import Values as Values
from reverie.denoisers.networks.conditions import build_condition as build_condition
from reverie.denoisers.networks.conditions import condition_of as condition_of
from reverie.denoisers.networks.conditions import condition_rows as condition_rows
from reverie.denoisers.networks.conditions import drop_conditions as drop_conditions
from reverie.denoisers.networks.convolution import Convolutional as Convolutional
from reverie.denoisers.networks.into_domain import DomainNetwork as DomainNetwork
from reverie.denoisers.networks.linear_sde import HybridScore as HybridScore
from reverie.denoisers.networks.linear_sde import StateNetwork as StateNetwork
from reverie.denoisers.networks.multiscale import Multiscale as Multiscale
from reverie.denoisers.networks.network import MaskedNetwork as MaskedNetwork
from reverie.denoisers.networks.network import Network as Network
from reverie.denoisers.networks.network import ResidualMLP as ResidualMLP
from reverie.denoisers.networks.operator import FourierNeuralOperator as FourierNeuralOperator
from reverie.denoisers.networks.operator import on_grid as on_grid
from reverie.denoisers.networks.simplex import InLogRatios as InLogRatios
from reverie.denoisers.networks.simplex import SharesNetwork as SharesNetwork
from reverie.denoisers.networks.tangent import CorrectedKernel as CorrectedKernel
from reverie.denoisers.networks.tangent import TangentNetwork as TangentNetwork
from reverie.denoisers.networks.tokens import PosteriorHead as PosteriorHead
from reverie.denoisers.networks.tokens import RatioHead as RatioHead
from reverie.denoisers.networks.tokens import TokenMLP as TokenMLP
from reverie.denoisers.networks.tokens import TokenTransformer as TokenTransformer
from reverie.denoisers.wrap import as_denoiser as as_denoiser

__getattr__ = _lazily(
    __name__,
    {},
    {
        "WEIGHTS": "reverie.objectives.weights:WEIGHTS",
        "loss_weight": "reverie.objectives.weights:loss_weight",
        "denoising_loss": "reverie.objectives.score_matching:denoising_loss",
        "implicit_loss": "reverie.objectives.score_matching:implicit_loss",
        "lineage_loss": "reverie.objectives.shares:lineage_loss",
        "implicit_shares_loss": "reverie.objectives.shares:implicit_shares_loss",
        "negative_elbo": "reverie.information.formerly:negative_elbo",
    },
)
