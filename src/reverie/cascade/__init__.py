"""Models made of models, one a scale: each is told the scale below it."""

from reverie import lazily as _lazily
from reverie.cascade.wavelets import Cascade as Cascade
from reverie.cascade.wavelets import fit_cascade as fit_cascade
from reverie.cascade.wavelets import fit_multiscale as fit_multiscale

__getattr__ = _lazily(
    __name__,
    {},
    {
        "Body": "reverie.cascade.wavelets:Body",
        "EMA": "reverie.cascade.wavelets:EMA",
        "Scale": "reverie.cascade.wavelets:Scale",
        "Standard": "reverie.cascade.wavelets:Standard",
    },
)
