"""Where the steps of a sampler lie, and what that costs: plans read off a loss curve."""

from reverie.plan.default import default_method as default_method
from reverie.plan.default import default_plan as default_plan
from reverie.plan.excess import CLOCKS as CLOCKS
from reverie.plan.plans import METHODS as METHODS
from reverie.plan.plans import Plan as Plan
from reverie.plan.plans import plan_at as plan_at
from reverie.plan.plans import plan_steps as plan_steps
from reverie.plan.plans import steps_needed as steps_needed
from reverie.plan.rivals import RIVALS as RIVALS
from reverie.plan.simulated import gits_plan as gits_plan
from reverie.plan.simulated import score_optimal_plan as score_optimal_plan
from reverie.plan.step_charges import AnyPlan as AnyPlan
from reverie.plan.step_charges import MeasuredPlan as MeasuredPlan
from reverie.plan.step_charges import StepCharges as StepCharges
from reverie.plan.step_charges import measure_steps as measure_steps
from reverie.plan.steps import PlannedSteps as PlannedSteps
