"""Density, entropy, mutual information and bounds, read off denoisers, in nats."""

from reverie.information.bound import Bound as Bound
from reverie.information.bound import bound as bound
from reverie.information.bound import bound_of as bound_of
from reverie.information.curves import entropy as entropy
from reverie.information.curves import kl_divergence as kl_divergence
from reverie.information.curves import mutual_information as mutual_information
from reverie.information.density import density_of as density_of
from reverie.information.density import log_density as log_density
from reverie.information.estimates import Estimate as Estimate
from reverie.information.immse import guess_gap as guess_gap
from reverie.information.immse import log_mass as log_mass
