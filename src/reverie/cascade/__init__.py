"""Models made of models, one a scale: each is told the scale below it."""

from reverie.cascade.wavelets import Cascade as Cascade
from reverie.cascade.wavelets import fit_cascade as fit_cascade
from reverie.cascade.wavelets import fit_multiscale as fit_multiscale
