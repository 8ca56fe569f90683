"""Inverse problems: an unconditional denoiser as the prior of what was observed.

y = A(x) + noise e,    draws of x given y:    reconstruct(denoiser, measurement, y, n)
"""

from reverie.inverse.guided import MMPS as MMPS
from reverie.inverse.guided import TMPD as TMPD
from reverie.inverse.guided import PiGDM as PiGDM
from reverie.inverse.measurements import Inpainting as Inpainting
from reverie.inverse.measurements import LinearMeasurement as LinearMeasurement
from reverie.inverse.measurements import Measurement as Measurement
from reverie.inverse.run import METHODS as METHODS
from reverie.inverse.run import Reconstruction as Reconstruction
from reverie.inverse.run import reconstruct as reconstruct
from reverie.inverse.twisted import Particles as Particles
