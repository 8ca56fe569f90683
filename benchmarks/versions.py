"""What two versions of this package do alike, as a script that knows only their public names.

`compare_versions.py` starts one such process for each version and asks both in turn.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie import LossCurve, Run, audit, fit, measure, plan_steps
from reverie.denoisers import Denoiser, Memoriser, Network, ResidualMLP
from reverie.forecast import predict
from reverie.processes import EDM, VE, Masking
from reverie.sampling import sample
from reverie.theory import LinearTheory, phase_diagram, power_law
from reverie.theory.equivalents import atoms

LEVELS = torch.linspace(1, 0, 65, dtype=torch.float64)
SMALL = {"n": 60, "holdout": 40, "steps": 60, "width": 16, "depth": 1, "check_every": 20}
PLANNED = ("loss-adaptive", "density", "karras", "log-snr", "cosine", "entropic")


class Null(Denoiser):
    """A network that costs nothing: what is left is the sampler's own work."""

    def __init__(self) -> None:
        super().__init__()
        self.process = VE(0.02, 20.0)

    def forward(self, state: torch.Tensor, t: torch.Tensor, condition: Any = None) -> torch.Tensor:
        return state


def network() -> Network:
    torch.manual_seed(0)
    return Network(EDM(), ResidualMLP((64,), 256, 3)).eval()


def workloads() -> dict[str, Callable[[], Any]]:
    """What is timed: as in the benchmarks of the same names."""
    rng = np.random.default_rng(0)
    model, rows = network(), torch.as_tensor(rng.standard_normal((1000, 64)), dtype=torch.float32)
    many = torch.as_tensor(rng.standard_normal((20_000, 784)), dtype=torch.float32)
    memoriser, states = Memoriser(EDM(), many), many[:512] + 0.5
    clock = np.exp(np.linspace(0, 12, 3000))
    curve = LossCurve(torch.as_tensor(clock), torch.as_tensor(1 / (1 + clock)))
    law, table = atoms(power_law(256, 1)), rng.standard_normal((5000, 64))
    counts, ridge, u = (
        np.geomspace(64, 4096, 20),
        np.geomspace(1e-3, 1, 20),
        np.geomspace(1e-3, 1e3),
    )
    null, init = Null(), 20 * torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    sets = rng.standard_normal((3, 1000, 8))
    jobs = {
        f"sampler-{name}": lambda name=name: sample(null, 4096, LEVELS, name, init=init)
        for name in ("ancestral", "ddim", "heun", "dpm++2m", "sde-dpm++2m")
    }
    return jobs | {
        "measure": lambda: measure(model, rows),
        "memoriser": lambda: memoriser(states, torch.tensor(0.5)),
        "program": lambda: plan_steps(curve, steps=50, clock="nats"),
        "theory": lambda: phase_diagram(law, counts, ridge, u),
        "predict": lambda: predict(table),
        "fit": lambda: fit("digits", **SMALL),
        "audit": lambda: audit(*sets),
    }  # fmt: skip


def results() -> dict[str, str]:
    """Hashes of what the same seeds give: equal hashes are equal bits."""
    model = network()
    rows = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    curve = measure(model, rows, generator=torch.Generator().manual_seed(2))
    found: dict[str, Any] = {"curve": curve.rate}
    for method in PLANNED:
        plan = plan_steps(curve, steps=10, method=method, **_clock(method))
        found[f"plan {method}"] = model.process.clock(_times(plan))
    times = _times(plan_steps(curve, steps=10, clock="nats"))
    for sampler in ("ancestral", "ddim", "heun", "dpm++2m"):
        drawn = sample(
            model, 50, times, sampler, shape=(64,), generator=torch.Generator().manual_seed(3)
        )
        found[f"sample {sampler}"] = drawn
    masking = Masking(4, (6,))
    state = masking.sample_prior(50, generator=torch.Generator().manual_seed(4))
    found["masking prior"] = state
    with tempfile.TemporaryDirectory() as folder:
        found["fit"] = _weights(fit("digits", out=Path(folder) / "run", **SMALL))
        found["resumed fit"] = _weights(_resumed(Path(folder) / "again"))
    sets = np.random.default_rng(5).standard_normal((3, 300, 4))
    verdict = audit(*sets)
    found["audit's p-value"] = torch.tensor(float(verdict.p_value))
    found["audit's report"] = json.dumps(verdict.to_json(), sort_keys=True)
    with tempfile.TemporaryDirectory() as folder:
        found["demo's report.json"] = _demo(Path(folder))
    found["theory"] = torch.as_tensor(LinearTheory(power_law(64, 1), n=100).expected_kl())
    return {name: _hash(value) for name, value in found.items()}


def _demo(folder: Path) -> str:
    """A demo of one small model; the module had another place in the first release."""
    cli = find_spec("reverie.cli")
    in_room = cli is not None and cli.submodule_search_locations is not None
    demo = import_module("reverie.cli.demo" if in_room else "reverie.demo")
    demo.MODELS = (("tiny", "", dict(SMALL, holdout=100)),)
    demo.run_demo(folder, samples=100, steps=5)
    return (folder / "report.json").read_text()


def _clock(method: str) -> dict[str, str]:
    return {"clock": "nats"} if method in ("loss-adaptive", "density") else {}


def _times(plan: Any) -> torch.Tensor:
    """Process times of a plan, which an older version keeps under `t`."""
    times = getattr(plan, "times", None)
    return times if isinstance(times, torch.Tensor) else plan.t


def _resumed(path: Path) -> Run:
    def stop(event: Any, trainer: Any) -> None:
        if event.step == 25:
            raise KeyboardInterrupt

    try:
        fit("digits", out=path, on_event=stop, **SMALL)
    except KeyboardInterrupt:
        return fit(out=path, resume=True)
    raise AssertionError("the fit was not stopped")


def _weights(run: Run) -> torch.Tensor:
    return torch.cat([w.detach().flatten() for w in run.denoiser.state_dict().values()])


def _hash(value: Any) -> str:
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).hexdigest()[:16]
    array = np.ascontiguousarray(torch.as_tensor(value).detach().numpy())
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def main() -> None:
    """Answer one line of input with one of JSON: `names`, `results`, or a workload to time."""
    torch.set_num_threads(1)
    jobs = workloads()
    for line in sys.stdin:
        asked = line.strip()
        if asked == "names":
            answer: Any = list(jobs)
        elif asked == "results":
            answer = results()
        else:
            start = time.process_time()
            jobs[asked]()
            answer = time.process_time() - start
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
