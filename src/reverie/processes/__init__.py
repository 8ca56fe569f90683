"""How noise enters: forward Markov processes with a kernel and a reverse step."""

from reverie.processes.base import Process as Process
from reverie.processes.chains import Ordinal as Ordinal
from reverie.processes.chains import RateMatrix as RateMatrix
from reverie.processes.chains import Uniform as Uniform
from reverie.processes.flexible import Flexible as Flexible
from reverie.processes.gaussian import GaussianProcess as GaussianProcess
from reverie.processes.jump import JumpProcess as JumpProcess
from reverie.processes.langevin import CriticallyDamped as CriticallyDamped
from reverie.processes.linear_sde import LinearSDE as LinearSDE
from reverie.processes.masking import Masking as Masking
from reverie.processes.riemannian import Brownian as Brownian
from reverie.processes.schedules import EDM as EDM
from reverie.processes.schedules import PROCESSES as PROCESSES
from reverie.processes.schedules import VE as VE
from reverie.processes.schedules import VP as VP
from reverie.processes.schedules import Cosine as Cosine
from reverie.processes.schedules import Custom as Custom
from reverie.processes.schedules import Rectified as Rectified
from reverie.processes.schedules import SubVP as SubVP
from reverie.processes.schedules import build as build
from reverie.processes.schedules import spec_of as spec_of
from reverie.processes.tabulated import Tabulated as Tabulated
