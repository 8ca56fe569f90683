"""Closed forms: linear diffusion models and what they say about data, before any training."""

from reverie import lazily as _lazily
from reverie.theory.bounds import Certificate as Certificate
from reverie.theory.bounds import Facts as Facts
from reverie.theory.bounds import certificates as certificates
from reverie.theory.equivalents import Atoms as Atoms
from reverie.theory.equivalents import SampleMeasure as SampleMeasure
from reverie.theory.equivalents import Traces as Traces
from reverie.theory.equivalents import atoms as atoms
from reverie.theory.equivalents import effective_ridge as effective_ridge
from reverie.theory.equivalents import kl_per_dim as kl_per_dim
from reverie.theory.equivalents import sample_measure as sample_measure
from reverie.theory.equivalents import seed_overlap as seed_overlap
from reverie.theory.linear import LinearTheory as LinearTheory
from reverie.theory.phase import PhaseDiagram as PhaseDiagram
from reverie.theory.phase import phase_diagram as phase_diagram
from reverie.theory.samplers import Scales as Scales
from reverie.theory.samplers import ddpm_scales as ddpm_scales
from reverie.theory.samplers import sampled_variance as sampled_variance
from reverie.theory.spectrum import Spectrum as Spectrum
from reverie.theory.spectrum import population as population
from reverie.theory.spectrum import power_law as power_law
from reverie.theory.spectrum import spectrum_of as spectrum_of
from reverie.theory.times import CriticalTime as CriticalTime
from reverie.theory.times import collapse_time as collapse_time
from reverie.theory.times import speciation_time as speciation_time
from reverie.theory.wishart import expected_kl as expected_kl
from reverie.theory.wishart import gaussian_kl as gaussian_kl
from reverie.theory.wishart import limit_kl_per_dim as limit_kl_per_dim

__getattr__ = _lazily(
    __name__,
    {},
    {
        "Levels": "reverie.theory.samplers:Scales",
        "ddpm_levels": "reverie.theory.samplers:ddpm_scales",
    },
)
