"""A model mixed, level by level, with the best guess that a few moments allow: never worse."""

from reverie.calibration.calibrated import Calibrated as Calibrated
from reverie.calibration.calibrating import calibrate as calibrate
from reverie.calibration.mixing import Mixing as Mixing
from reverie.calibration.mixing_rules import mixing_of as mixing_of
from reverie.calibration.references import Reference as Reference
from reverie.calibration.references import reference_of as reference_of
from reverie.calibration.result import Calibration as Calibration
