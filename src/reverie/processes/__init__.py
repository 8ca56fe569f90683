"""How noise enters: forward Markov processes with a kernel and a reverse step."""

from reverie.processes.base import Process as Process
from reverie.processes.chains import Ordinal as Ordinal
from reverie.processes.chains import RateMatrix as RateMatrix
from reverie.processes.chains import Uniform as Uniform
from reverie.processes.gaussian import GaussianProcess as GaussianProcess
from reverie.processes.jump import JumpProcess as JumpProcess
from reverie.processes.learned import Learned as Learned
from reverie.processes.masking import Masking as Masking
from reverie.processes.modes import ModalProcess as ModalProcess
from reverie.processes.names import build as build
from reverie.processes.names import spec_of as spec_of
from reverie.processes.on_spaces import default_process as default_process
from reverie.processes.on_spaces import name_of as name_of
from reverie.processes.on_spaces import process_on as process_on
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
