"""Models and schedulers of the diffusers library: loading them, and handing plans over."""

from reverie.diffusers.handover import Handover as Handover
from reverie.diffusers.handover import hand_over as hand_over
from reverie.diffusers.loading import from_diffusers as from_diffusers
from reverie.diffusers.serving import StockModel as StockModel
from reverie.diffusers.serving import to_diffusers as to_diffusers
