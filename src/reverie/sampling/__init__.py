"""Simulate the reversal on a plan, with the samplers of the field, and read its likelihood.

The last denoise at the cleanest level is appended here, so that K steps take K + 1 evaluations
(2K + 1 for heun and dpm++2s).
"""

from reverie.information.manifolds import DurationLaw as DurationLaw
from reverie.information.manifolds import elbo as elbo
from reverie.information.manifolds import flow_log_likelihood as flow_log_likelihood
from reverie.sampling.jumps import first_hitting as first_hitting
from reverie.sampling.jumps import gillespie as gillespie
from reverie.sampling.jumps import tau_leap as tau_leap
from reverie.sampling.levels import Visit as Visit
from reverie.sampling.probability_flow import LogLikelihood as LogLikelihood
from reverie.sampling.probability_flow import log_likelihood as log_likelihood
from reverie.sampling.run import LINEAR_SAMPLERS as LINEAR_SAMPLERS
from reverie.sampling.run import SAMPLERS as SAMPLERS
from reverie.sampling.run import Options as Options
from reverie.sampling.run import Sampling as Sampling
from reverie.sampling.run import sample as sample
from reverie.sampling.two_stage import Churn as Churn
