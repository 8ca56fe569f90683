"""Who guesses: exact optima, trained networks, and wrappers of other people's models."""

from reverie.denoisers.adaptive_mixture import AdaptiveMixture as AdaptiveMixture
from reverie.denoisers.base import Denoiser as Denoiser
from reverie.denoisers.base import evaluating as evaluating
from reverie.denoisers.conversions import PREDICTIONS as PREDICTIONS
from reverie.denoisers.conversions import convert as convert
from reverie.denoisers.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
from reverie.denoisers.guidance import ClassifierGuidance as ClassifierGuidance
from reverie.denoisers.kernel_mixture import KernelMixture as KernelMixture
from reverie.denoisers.linear import Linear as Linear
from reverie.denoisers.memoriser import Memoriser as Memoriser
from reverie.denoisers.network import Network as Network
from reverie.denoisers.network import ResidualMLP as ResidualMLP
from reverie.denoisers.score_matching import denoising_loss as denoising_loss
from reverie.denoisers.score_matching import implicit_loss as implicit_loss
from reverie.denoisers.tangent import CorrectedKernel as CorrectedKernel
from reverie.denoisers.tangent import TangentNetwork as TangentNetwork
from reverie.denoisers.tokens import PosteriorHead as PosteriorHead
from reverie.denoisers.tokens import RatioHead as RatioHead
from reverie.denoisers.tokens import TokenMLP as TokenMLP
from reverie.denoisers.tokens import TokenTransformer as TokenTransformer
from reverie.denoisers.wrap import as_denoiser as as_denoiser
