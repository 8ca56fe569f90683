"""Simulation-based inference: learn p(theta | x) from a simulator, and check it."""

from reverie.simulation.calibration import Calibration as Calibration
from reverie.simulation.calibration import classifier_accuracy as classifier_accuracy
from reverie.simulation.calibration import density_calibration as density_calibration
from reverie.simulation.calibration import rank_calibration as rank_calibration
from reverie.simulation.composition import Composed as Composed
from reverie.simulation.posterior import Posterior as Posterior
from reverie.simulation.posterior import posterior as posterior
