"""From one law to another: couplings, Schrodinger bridges, first hitting, constrained domains."""

from reverie.bridges.base import Bridge as Bridge
from reverie.bridges.benchmark import EntropicPair as EntropicPair
from reverie.bridges.benchmark import conditional_uvp as conditional_uvp
from reverie.bridges.coupling import Coupling as Coupling
from reverie.bridges.coupling import Independent as Independent
from reverie.bridges.coupling import MinibatchSinkhorn as MinibatchSinkhorn
from reverie.bridges.coupling import Paired as Paired
from reverie.bridges.coupling import Sinkhorn as Sinkhorn
from reverie.bridges.gaussian import GaussianBridge as GaussianBridge
from reverie.bridges.light import LightSB as LightSB
from reverie.bridges.light import fit_light as fit_light
from reverie.bridges.matching import NetworkBridge as NetworkBridge
from reverie.bridges.matching import fit_matching as fit_matching
from reverie.bridges.mean_matching import gaussian_mean_matching as gaussian_mean_matching
from reverie.bridges.process import BridgeProcess as BridgeProcess
from reverie.bridges.process import pairs_for as pairs_for
from reverie.bridges.reference import BrownianMotion as BrownianMotion
from reverie.bridges.reference import NoiseReference as NoiseReference
from reverie.bridges.reference import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from reverie.bridges.reference import Reference as Reference
from reverie.bridges.reference import reference_named as reference_named
from reverie.bridges.sinkhorn import SinkhornBridge as SinkhornBridge
from reverie.bridges.sinkhorn import SinkhornPlan as SinkhornPlan
from reverie.bridges.sinkhorn import sinkhorn as sinkhorn
