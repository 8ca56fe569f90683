"""The page a person reads: figures and one self-contained HTML file, with JSON beside it."""

from reverie.report.bridges import write_bridge as write_bridge
from reverie.report.forecasts import write_forecast as write_forecast
from reverie.report.of_run import describe as describe
from reverie.report.page import ModelReport as ModelReport
from reverie.report.page import write_report as write_report
from reverie.report.plans import PlanReport as PlanReport
from reverie.report.plans import report_plans as report_plans
from reverie.report.plans import write_plans as write_plans
from reverie.report.splits import write_split as write_split
from reverie.report.sweeps import write_sweep as write_sweep
