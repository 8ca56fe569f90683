"""From one law to another: couplings, Schrodinger bridges, first hitting, constrained domains."""

from reverie.bridges.base import Bridge as Bridge
from reverie.bridges.coupling import Coupling as Coupling
from reverie.bridges.coupling import Independent as Independent
from reverie.bridges.coupling import MinibatchSinkhorn as MinibatchSinkhorn
from reverie.bridges.coupling import Paired as Paired
from reverie.bridges.coupling import Sinkhorn as Sinkhorn
from reverie.bridges.gaussian import GaussianBridge as GaussianBridge
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
