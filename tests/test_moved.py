"""Every public name of release 0.1 still works in 0.2; what moved says where to."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import reverie
from own_processes import Potts
from reverie import Run, audit, bound, plan_steps
from reverie.cascade.wavelets import Cascade, Scale
from reverie.curve import LossCurve
from reverie.data import coder_from_json, load
from reverie.data.coders import SymbolCoder
from reverie.denoisers import Convolutional, Memoriser, network_for
from reverie.diffusers.handover import Handover
from reverie.formerly import MODULES, NAMES
from reverie.information import formerly
from reverie.plan import Plan
from reverie.processes import EDM, VP, CriticallyDamped, Uniform
from reverie.runs.readings import sampling_curve
from reverie.spaces.bases import Wavelet

RUN = Path(__file__).parent / "fixtures" / "run-before-the-move"
# module: its public names in release 0.1
OLD = """
reverie: as_denoiser Denoiser from_diffusers InputError LossCurve measure Plan plan_steps
    plan_at gits_plan score_optimal_plan Estimate entropy evidence_bound guess_gap
    kl_divergence log_density log_mass mutual_information sample fit predict Run retrain sweep
    posterior Posterior audit Verdict
reverie.denoisers: AdaptiveMixture Denoiser evaluating network_for Labels Values
    build_condition condition_of condition_rows drop_conditions PREDICTIONS convert
    Convolutional GaussianMixture ClassifierFreeGuidance ClassifierGuidance JointConditional
    annealed_level speed_to KernelMixture Linear HybridScore StateNetwork Transferred
    negative_elbo Memoriser Multiscale MaskedNetwork Network ResidualMLP FourierNeuralOperator
    on_grid denoising_loss implicit_loss DirichletMixture InLogRatios SharesNetwork
    implicit_shares_loss lineage_loss CorrectedKernel TangentNetwork PosteriorHead RatioHead
    TokenMLP TokenTransformer WEIGHTS loss_weight as_denoiser
reverie.sampling: first_hitting gillespie tau_leap Visit DurationLaw elbo flow_log_likelihood
    LogLikelihood log_likelihood LINEAR_SAMPLERS SAMPLERS Options Sampling sample Churn
reverie.processes: Process Ordinal RateMatrix Uniform RBF Covariance Exponential Matern
    PowerLaw Flexible FunctionNoise GaussianProcess JumpProcess CriticallyDamped Learned
    LinearSDE LogRatios Masking ModalProcess build spec_of default_process name_of process_on
    Brownian EDM PROCESSES VE VP Cosine Custom LogLinear Rectified SubVP Tabulated WrightFisher
reverie.plan: CLOCKS gits_plan score_optimal_plan METHODS Plan plan_at plan_steps steps_needed
    RIVALS MeasuredPlan StepCharges measure_steps
reverie.auditing: cell_test write_clean CommonSpace common_space audit weigh nearest near_test
    share_test tail_test SplitReport audit_split Verdict
reverie.information: Estimate log_density log_mass entropy mutual_information kl_divergence
    guess_gap
reverie.objectives: WEIGHTS Bound Denoising Noising Objective Regression Standard Conditional
    Masked Constrained dual_optimum train_constrained Student distil FunctionLoss
    cameron_martin sobolev GapNoise VariationalFit build_objective
reverie.report: write_forecast ModelReport write_report PlanReport report_plans write_plans
    write_split write_sweep
reverie.spaces: Space Basis Frequencies Identity KarhunenLoeve Wavelet basis_named divergence
    Euclidean FiniteSet Flat Functions Hyperbolic Manifold space_named Product Rotations
    Simplex Sphere Torus
reverie.data: ManifoldCoder SymbolCoder coder_for coder_from_json Column Dataset FASHION
    BUILT_IN load row_codes shared_rows some_rows split Scaler ending_of in_user_layout save
    save_rows to_image to_pixels
reverie.inverse: MMPS TMPD PiGDM Inpainting LinearMeasurement Measurement METHODS
    Reconstruction reconstruct Particles
reverie.simulation: Calibration classifier_accuracy density_calibration rank_calibration
    Composed Posterior posterior
reverie.theory: Certificate Facts certificates Atoms SampleMeasure Traces atoms effective_ridge
    kl_per_dim sample_measure seed_overlap LinearTheory PhaseDiagram phase_diagram Levels
    ddpm_levels sampled_variance Spectrum population power_law spectrum_of CriticalTime
    collapse_time speciation_time expected_kl gaussian_kl limit_kl_per_dim
reverie.cascade: Body EMA Scale Standard Cascade fit_cascade fit_multiscale
reverie.cli: Common Fit Sample Audit PlanSteps Compare Predict Export Reproduce Sweep Demo
    Command main print_result
reverie.runs: CONDITIONS Run build_denoiser conditions_of start open_data whole_data split_rows
    save_tensors load_tensors load_weights
reverie.auditing.metrics: Prdc prdc coverage_null ratio_hits intrinsic_dimension authentic
    authenticity_limit
reverie.theory.samplers: Levels ddpm_levels levels_of sampled_variance variance_path
reverie.sampling.probability_flow: LogLikelihood ode log_likelihood integrate
reverie.training: Event Progress Trainer fit
reverie.readings: Ticker RUN_SAMPLERS standard_curves sampling_curve sampling_plan
    steps_are_measured step_charges PathKL path_kl draw draw_paired audit_run
reverie.config: FitConfig
reverie.sweeps: Hooks Line Sweep sweep
reverie.retraining: Hooks Retrainings retrain retrain_run retrain_rows
reverie.staircase: Staircase best_knots least_areas polish
reverie.evidence: Bound prior_divergence reconstruction evidence_bound
reverie.export: export model_card
reverie.noise_law: NoiseLaw
reverie.previews: write_preview contact_sheet
reverie.rejection: draw_without_copies copies_of
reverie.commands: fit sample plan compare sweep demo predict export reproduce
reverie.console: again Console open_run
reverie.demo: run_demo describe
reverie.audit_commands: Cleaning audit
reverie.plan.charges: Warp Charge charge warp_of variance_of has_samples_clock
reverie.plan.measured: gits_plan score_optimal_plan
reverie.processes.bound: low_discrepancy clock_speed bound_rate negative_elbo
reverie.processes.names: build spec_of
reverie.processes.on_spaces: default_process process_on name_of
reverie.sampling.levels: Guess Number Visit Visits Levels combine plan_times
reverie.sampling.manifold_likelihood: flow_log_likelihood DurationLaw elbo
reverie.denoisers.linear_sde: Transferred StateNetwork HybridScore negative_elbo
reverie.denoisers.simplex: SharesNetwork lineage_loss implicit_shares_loss DirichletMixture
    InLogRatios
reverie.denoisers.diffusers: from_diffusers is_flow library
reverie.denoisers.handover: Handover hand_over
reverie.curve: Leak LossCurve level_times measure as_points level_rates
reverie.forecast: Forecast predict
reverie.files: write_bytes write_text write_json new_folder read_json
reverie.errors: InputError
"""
GOES = "the old name goes with the next release"


def old_names() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in OLD.strip().splitlines():
        if not line.startswith(" "):
            module, _, line = line.partition(":")
            found[module] = []
        found[module] += line.split()
    return found


@pytest.fixture
def fresh(monkeypatch):
    """Moved modules as if nobody had imported them yet."""
    for old in MODULES:
        monkeypatch.delitem(sys.modules, f"reverie.{old}", raising=False)


@pytest.mark.parametrize("module", old_names())
def test_old_names_resolve(module, fresh):
    """Where they are, or under a warning that says where they went."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = import_module(module)
        for name in old_names()[module]:
            assert getattr(found, name) is not None
    for warning in said:
        assert warning.category is DeprecationWarning
        assert "is now reverie." in str(warning.message)
        assert GOES in str(warning.message)
        assert warning.filename == __file__ or "importlib" in warning.filename
    assert bool(said) >= (module.removeprefix("reverie.") in MODULES)


@pytest.mark.parametrize("old", MODULES)
def test_a_moved_module_says_where_it_went(old, fresh):
    with pytest.warns(
        DeprecationWarning, match=rf"reverie\.{old} is now reverie\.{MODULES[old]};"
    ):
        import_module(f"reverie.{old}")
    import_module(f"reverie.{old}")  # says it once


@pytest.mark.parametrize(("old", "name"), [(old, name) for old in NAMES for name in NAMES[old]])
def test_names_that_left_their_module_say_so(old, name, fresh):
    with pytest.warns(DeprecationWarning, match="is now"):
        module = import_module(f"reverie.{old}")
    home, _, new = NAMES[old][name].partition(":")
    with pytest.warns(DeprecationWarning, match=rf"{name} is now {home}\.{new};"):
        found = getattr(module, name)
    assert found is getattr(import_module(home), new)


def test_a_name_that_never_was_is_no_name():
    for package in ("reverie", "reverie.theory", "reverie.cascade", "reverie.cli"):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = import_module(package).nothing


# --- attributes and keywords ---------------------------------------------------------------------


def old(name: str, new: str):
    return pytest.warns(DeprecationWarning, match=rf"{name} is now {new};")


def test_old_attributes_of_a_plan():
    u = np.geomspace(0.01, 100, 40)
    plan = plan_steps(LossCurve(u, 1 / (1 + u), process=EDM(0.05, 20), dim=2), 4)
    with old("Plan.charge", "Plan.clock_excess"):
        assert plan.charge == plan.clock_excess
    with old("Plan.charges", "Plan.excesses"):
        assert plan.charges == plan.excesses
    assert not hasattr(Plan, "charge")


def test_old_attributes_of_processes_and_pictures(generator):
    with old("process.levels", "process.scales"):
        assert VP().levels(0.5, torch.zeros(2, 3))[0].shape == (1, 1)
    handover = Handover(None, np.array([3.0, 1.0]), None)
    with old("Handover.levels", "Handover.spreads"):
        assert handover.levels is handover.spreads
    with old("levels=", "depth="):
        basis = Wavelet((4, 4), "haar", levels=2)
    with old("Wavelet.levels", "Wavelet.depth"):
        assert basis.levels == basis.depth == 2
    images = torch.randn(6, 1, 4, 4, generator=generator)
    with old("levels=", "depth="):
        cascade = Cascade(images, EDM(), levels=1)
    with old("Cascade.levels", "Cascade.depth"):
        assert cascade.levels == 1
    with old("Scale.told", "Scale.condition"):
        assert Scale(images, images).told is images
    with old("told=", "condition="):
        Convolutional(1, told=2, width=4, depth=1)


def test_old_functions_are_their_new_forms(generator):
    x = torch.randn(5, 2, generator=generator)
    process = VP()
    with old(r"reverie.evidence_bound", r"reverie.information.bound"):
        assert reverie.evidence_bound is bound
    with pytest.warns(DeprecationWarning, match="prior_kl"):
        torch.testing.assert_close(formerly.prior_divergence(process, x), process.prior_kl(x))
    seeds = [torch.Generator().manual_seed(3) for _ in range(4)]
    with pytest.warns(DeprecationWarning, match="reconstruction"):
        found = formerly.reconstruction(process, x, generator=seeds[0])
    torch.testing.assert_close(found, process.reconstruction(x, generator=seeds[1]))
    # of linear SDEs and of jumps: one number for each row, that of `bound` with the same noise
    damped = network_for(CriticallyDamped(), (2,), width=8, depth=1)
    chain, words = Uniform(3, 2), torch.randint(3, (6, 2), generator=generator)
    copying = Memoriser(chain, words)
    with pytest.warns(DeprecationWarning, match="state_bound"):
        each = formerly.negative_elbo(damped, x, generator=seeds[2])
    assert each.shape == (5,)
    again = bound(damped, x, generator=torch.Generator().manual_seed(3)).each
    np.testing.assert_allclose(each.detach().numpy(), again, rtol=1e-5)  # float32
    with pytest.warns(DeprecationWarning, match="each"):
        each = formerly.negative_elbo_of_jumps(chain, copying, words, 8, generator=seeds[3])
    again = bound(copying, words, draws=8, generator=torch.Generator().manual_seed(3)).each
    np.testing.assert_allclose(each.numpy(), again)


# --- runs and data that release 0.1 wrote --------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    return Run.load(shutil.copytree(RUN, tmp_path / "run"))


def test_a_run_of_the_release_before_works(run):
    x = run.holdout_points()
    assert torch.isfinite(run.denoiser(x, torch.full((len(x),), 0.5))).all()
    drawn = run.sample(40, 4)
    assert drawn.shape == (40, 2)
    assert np.isfinite(drawn).all()
    assert audit(run.train_values, run.holdout.values, drawn).finding
    assert run.audit(40, sampling_steps=4).finding


def test_its_plan_is_the_one_made_then(run):
    """The curve on file is planned again: the same levels to .2%, by which the program of then
    had not settled, at no higher price."""
    stored = json.loads((RUN / "plan.json").read_text())
    plan = plan_steps(sampling_curve(run), stored["steps"], clock=stored["clock"])
    made = json.loads(json.dumps(plan.to_json()))
    assert made.keys() == stored.keys()
    for key, value in stored.items():
        if isinstance(value, dict):
            # the samples clock reads the variance off the data now
            assert made[key]["nats"] == pytest.approx(value["nats"], rel=1e-3)
        elif isinstance(value, list | float):
            np.testing.assert_allclose(made[key], value, rtol=2e-3, atol=1e-9)
        else:
            assert made[key] == value
    assert made["charge"] <= stored["charge"] * (1 + 1e-9)


def test_the_alphabets_of_the_release_before_are_read(tmp_path):
    """`levels` was their key in data.json."""
    values = np.random.default_rng(0).integers(0, 5, (30, 4))
    data = load(values)
    coder = SymbolCoder.fit(data)
    written = coder.to_json()
    before = {k: v for k, v in written.items() if k != "alphabets"}
    before["levels"] = written["alphabets"]
    assert coder_from_json(before) == coder == coder_from_json(written)
    with old("SymbolCoder.levels", "SymbolCoder.alphabets"):
        assert coder.levels == coder.alphabets
    again = reverie.fit(values, process=Potts(), out=tmp_path / "run", steps=2, width=8, depth=1)
    file = tmp_path / "run" / "data.json"
    text = file.read_text().replace('"alphabets"', '"levels"')
    assert text != file.read_text()
    file.write_text(text)
    loaded = Run.load(tmp_path / "run", process=Potts())
    assert loaded.scaler == again.scaler
