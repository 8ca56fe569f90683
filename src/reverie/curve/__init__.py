"""What a denoiser's guess costs, in nats, at each noise level: the loss curve, and its readings.

`loss_curve.py` is the one file to open first.
"""

from reverie.curve.gap import Z95 as Z95
from reverie.curve.gap import Gap as Gap
from reverie.curve.gap import Leak as Leak
from reverie.curve.loss_curve import LossCurve as LossCurve
from reverie.curve.measured import measure as measure
from reverie.denoisers.rates import as_points as as_points
from reverie.denoisers.rates import level_rates as level_rates
from reverie.denoisers.rates import level_times as level_times
