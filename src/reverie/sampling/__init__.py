"""Simulate the reversal on a plan, with the samplers of the field, and read its likelihood.

The last denoise at the cleanest level is appended here, so that K steps take K + 1 evaluations
(2K + 1 for heun and dpm++2s).
"""

from reverie import lazily as _lazily
from reverie.sampling.blocks import sample_many as sample_many
from reverie.sampling.run import Options as Options
from reverie.sampling.run import Sampling as Sampling
from reverie.sampling.run import sample as sample
from reverie.sampling.samplers import SAMPLERS as SAMPLERS
from reverie.sampling.samplers import Sampler as Sampler
from reverie.sampling.samplers import default_sampler as default_sampler
from reverie.sampling.samplers import samplers_of as samplers_of
from reverie.sampling.scales import Visit as Visit
from reverie.sampling.two_stage import Churn as Churn

__getattr__ = _lazily(
    __name__,
    {},
    {
        "tau_leap": "reverie.sampling.formerly:tau_leap",
        "gillespie": "reverie.sampling.formerly:gillespie",
        "first_hitting": "reverie.sampling.formerly:first_hitting",
        "log_likelihood": "reverie.information.flow:flow_density",
        "flow_log_likelihood": "reverie.information.manifolds:manifold_flow_density",
        "LogLikelihood": "reverie.information.flow:LogLikelihood",
        "LINEAR_SAMPLERS": "reverie.sampling.formerly:LINEAR_SAMPLERS",
        "elbo": "reverie.information.manifolds:elbo",
        "DurationLaw": "reverie.information.manifolds:DurationLaw",
    },
)
