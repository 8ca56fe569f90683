"""Who guesses: exact optima, trained networks, and wrappers of other people's models."""

from reverie.denoisers.base import Denoiser as Denoiser
from reverie.denoisers.base import evaluating as evaluating
from reverie.denoisers.choice import network_for as network_for
from reverie.denoisers.conditions import Labels as Labels
from reverie.denoisers.conditions import Values as Values
from reverie.denoisers.conditions import build_condition as build_condition
from reverie.denoisers.conditions import condition_of as condition_of
from reverie.denoisers.conditions import condition_rows as condition_rows
from reverie.denoisers.conditions import drop_conditions as drop_conditions
from reverie.denoisers.conversions import PREDICTIONS as PREDICTIONS
from reverie.denoisers.conversions import convert as convert
<<<<<<< HEAD
from reverie.denoisers.gaussian_mixture import GaussianMixture as GaussianMixture
=======
from reverie.denoisers.convolution import Convolutional as Convolutional
>>>>>>> modes
from reverie.denoisers.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
from reverie.denoisers.guidance import ClassifierGuidance as ClassifierGuidance
from reverie.denoisers.joint import JointConditional as JointConditional
from reverie.denoisers.joint import annealed_level as annealed_level
from reverie.denoisers.joint import speed_to as speed_to
from reverie.denoisers.kernel_mixture import KernelMixture as KernelMixture
from reverie.denoisers.linear import Linear as Linear
from reverie.denoisers.linear_sde import HybridScore as HybridScore
from reverie.denoisers.linear_sde import StateNetwork as StateNetwork
from reverie.denoisers.linear_sde import Transferred as Transferred
from reverie.denoisers.linear_sde import negative_elbo as negative_elbo
from reverie.denoisers.memoriser import Memoriser as Memoriser
<<<<<<< HEAD
from reverie.denoisers.network import MaskedNetwork as MaskedNetwork
=======
from reverie.denoisers.multiscale import Multiscale as Multiscale
>>>>>>> modes
from reverie.denoisers.network import Network as Network
from reverie.denoisers.network import ResidualMLP as ResidualMLP
from reverie.denoisers.operator import FourierNeuralOperator as FourierNeuralOperator
from reverie.denoisers.operator import on_grid as on_grid
from reverie.denoisers.score_matching import denoising_loss as denoising_loss
from reverie.denoisers.score_matching import implicit_loss as implicit_loss
from reverie.denoisers.simplex import DirichletMixture as DirichletMixture
from reverie.denoisers.simplex import InLogRatios as InLogRatios
from reverie.denoisers.simplex import SharesNetwork as SharesNetwork
from reverie.denoisers.simplex import implicit_shares_loss as implicit_shares_loss
from reverie.denoisers.simplex import lineage_loss as lineage_loss
from reverie.denoisers.tangent import CorrectedKernel as CorrectedKernel
from reverie.denoisers.tangent import TangentNetwork as TangentNetwork
from reverie.denoisers.tokens import PosteriorHead as PosteriorHead
from reverie.denoisers.tokens import RatioHead as RatioHead
from reverie.denoisers.tokens import TokenMLP as TokenMLP
from reverie.denoisers.tokens import TokenTransformer as TokenTransformer
from reverie.denoisers.weights import WEIGHTS as WEIGHTS
from reverie.denoisers.weights import loss_weight as loss_weight
from reverie.denoisers.wrap import as_denoiser as as_denoiser
