"""How noise enters: forward Markov processes with a kernel and a reverse step."""

from reverie import lazily as _lazily
from reverie.processes.base import Draw as Draw
from reverie.processes.base import Process as Process
from reverie.processes.chains import Ordinal as Ordinal
from reverie.processes.chains import RateMatrix as RateMatrix
from reverie.processes.chains import Uniform as Uniform
from reverie.processes.covariance import RBF as RBF
from reverie.processes.covariance import Covariance as Covariance
from reverie.processes.covariance import Exponential as Exponential
from reverie.processes.covariance import Matern as Matern
from reverie.processes.covariance import PowerLaw as PowerLaw
from reverie.processes.flexible import Flexible as Flexible
from reverie.processes.functional import FunctionNoise as FunctionNoise
from reverie.processes.gaussian import GaussianProcess as GaussianProcess
from reverie.processes.gaussian import VariancePreserving as VariancePreserving
from reverie.processes.gaussian import require_gaussian as require_gaussian
from reverie.processes.into_domain import BrownianBridge as BrownianBridge
from reverie.processes.into_domain import DomainBridges as DomainBridges
from reverie.processes.jump import JumpProcess as JumpProcess
from reverie.processes.langevin import CriticallyDamped as CriticallyDamped
from reverie.processes.learned import Learned as Learned
from reverie.processes.linear_sde import LinearSDE as LinearSDE
from reverie.processes.log_ratios import LogRatios as LogRatios
from reverie.processes.masking import Masking as Masking
from reverie.processes.modes import ModalProcess as ModalProcess
from reverie.processes.named import build as build
from reverie.processes.product import ProductProcess as ProductProcess
from reverie.processes.registry import default_process as default_process
from reverie.processes.registry import name_of as name_of
from reverie.processes.registry import process_on as process_on
from reverie.processes.registry import process_typed as process_typed
from reverie.processes.registry import register as register
from reverie.processes.riemannian import Brownian as Brownian
from reverie.processes.schedules import EDM as EDM
from reverie.processes.schedules import PROCESSES as PROCESSES
from reverie.processes.schedules import VE as VE
from reverie.processes.schedules import VP as VP
from reverie.processes.schedules import Cosine as Cosine
from reverie.processes.schedules import Custom as Custom
from reverie.processes.schedules import LogLinear as LogLinear
from reverie.processes.schedules import Rectified as Rectified
from reverie.processes.schedules import SubVP as SubVP
from reverie.processes.tabulated import Tabulated as Tabulated
from reverie.processes.wright_fisher import WrightFisher as WrightFisher

__getattr__ = _lazily(
    __name__,
    {},
    {
        "spec_of": "reverie.processes.registry:name_of",
    },
)
