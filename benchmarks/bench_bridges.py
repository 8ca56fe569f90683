"""Bridges: LightSB against its published figure, a path's step, torchcfm and POT in one process.

    pip install --no-deps torchcfm POT     # in an environment of its own; rows without are skipped
    python benchmarks/bench_bridges.py

A domain's network is timed beside the Gaussian network around the same body, which says nothing.

Must: LightSB at a cBW2-UVP of .2% or below in under 60 s at D = 16, epsilon = 1 (pairs drawn anew,
diagonal components); a step of a bridge's path no slower than one of a Gaussian sampler with the
same null network; no slower than the peers on the same work. CPU time of one thread, in pairs.
"""

from __future__ import annotations

import importlib.util
import time

import torch
from torch import Tensor, nn

from bench_sampler import BATCH, ENDS, STEPS, Model
from reverie.bridges import Bridge, BrownianMotion, MinibatchSinkhorn, NetworkBridge, sinkhorn
from reverie.denoisers import Denoiser, DomainNetwork, Network
from reverie.processes import VE, DomainBridges
from reverie.reproduce.schrodinger_bridge import light_row
from reverie.sampling import sample
from reverie.spaces import Bounded, Intervals
from timing import paired

MOST, SECONDS = 0.2, 60.0  # of LightSB
PAIRS, BATCH_2M = 1000, 256
SIGMA = 1.0


class Null(Bridge):
    """A bridge whose guess is the state."""

    def __init__(self) -> None:
        super().__init__()
        self.reference, self.dim = BrownianMotion(1.0), 2

    def guess(
        self, y: Tensor, share: Tensor, *, reverse: bool = False, start: Tensor | None = None
    ) -> Tensor:
        return y


class Zero(nn.Module):
    """A body for a network into a domain that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return x[:, :2] * self.unit


class Quiet(Denoiser):
    """A denoiser into a domain whose guess is the state."""

    def __init__(self, process: DomainBridges) -> None:
        super().__init__()
        self.process = process

    def forward(self, state: Tensor, t: Tensor, condition: object = None) -> Tensor:
        return state


def light() -> None:
    for steps in (400, 800, 1600):
        began = time.process_time()
        row = light_row(16, 1.0, 0, steps)
        took = time.process_time() - began
        verdict = "met" if row.ours <= MOST and took < SECONDS else "not met"
        print(f"LightSB D = 16, {steps:>5} steps: {row.ours:.3f} % in {took:5.1f} s CPU, metric "
              f"included ({MOST} % in {SECONDS:.0f} s: {verdict}; published {row.reference} %)",
              flush=True)  # fmt: skip


def steps() -> None:
    """A step of a path beside ancestral steps of Gaussian noise."""
    init, gaussian, null = torch.randn(BATCH, 2), Model(), Null()
    times = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)
    box = DomainBridges(Bounded(Intervals([-5.0] * 2, [5.0] * 2)))
    domain, at = (
        DomainNetwork(box, body=Zero()),
        torch.linspace(box.t_range[1], box.t_range[0], STEPS + 1),
    )
    scaled = Network(VE(*ENDS), Zero())  # the Gaussian network around the same body
    quiet = Quiet(box)
    rows = {
        "path of a bridge": (lambda: null.sample(init, steps=STEPS), gaussian, "ancestral"),
        "its denoiser, sampled": (
            lambda: sample(
                null.denoiser(), BATCH, torch.linspace(0.99, 0.01, STEPS + 1), init=init
            ),
            gaussian, "ancestral",
        ),
        "into a box": (lambda: sample(quiet, BATCH, at, "heun", init=init), gaussian, "heun"),
        "into a box, a network with its cut Gaussians": (
            lambda: sample(domain, BATCH, at, "heun", init=init), scaled, "heun",
        ),
    }  # fmt: skip
    with torch.no_grad():
        for name, (made, model, other) in rows.items():
            pair = paired(
                made, lambda m=model, s=other: sample(m, BATCH, times, s, init=init), repeats=15,
                warmup=3, clock=time.thread_time,
            )  # fmt: skip
            micro = [1e6 * seconds / STEPS for seconds in (pair.ours, pair.theirs)]
            around = "a network" if model is scaled else "nothing"
            print(f"{name}: {micro[0]:.1f} us a step, {other} steps of Gaussian noise around "
                  f"{around} {micro[1]:.1f}: ratio {pair.ratio:.2f} "
                  f"[{pair.low:.2f}, {pair.high:.2f}]", flush=True)  # fmt: skip


def transport() -> None:
    if importlib.util.find_spec("ot") is None:
        print("POT: skipped, it is not installed")
        return
    import ot

    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(PAIRS, 2, generator=draw).double(), torch.randn(PAIRS, 2, generator=draw)
    y = y.double() * 0.5 + 1
    cost, mass = (torch.cdist(x, y).square() / 2).numpy(), [1 / PAIRS] * PAIRS
    for epsilon in (1.0, 0.1):

        def theirs(epsilon: float = epsilon) -> object:
            return ot.sinkhorn(
                mass, mass, cost, epsilon, method="sinkhorn_log", stopThr=1e-7, numItermax=5000
            )

        plan = torch.as_tensor(theirs())
        apart = float((sinkhorn(x, y, epsilon).matrix() - plan).abs().sum())
        pair = paired(
            lambda e=epsilon: sinkhorn(x, y, e), theirs, repeats=5, clock=time.thread_time
        )
        print(f"Sinkhorn {PAIRS} x {PAIRS}, epsilon {epsilon:g}, beside POT: {pair}; "
              f"plans apart by {apart:.1e} of the mass", flush=True)  # fmt: skip


def matching() -> None:
    """A training step of [SF]2M, both directions' targets: ours beside torchcfm's."""
    if importlib.util.find_spec("torchcfm") is None or importlib.util.find_spec("ot") is None:
        print("torchcfm: skipped, it or POT is not installed")
        return
    from torchcfm import SchrodingerBridgeConditionalFlowMatcher

    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 10_000, 2, generator=draw)
    b = b * 0.5 + 1
    bridge = NetworkBridge(2, BrownianMotion(SIGMA), width=64, depth=1)
    pairs = MinibatchSinkhorn(a, b, BrownianMotion(SIGMA), BATCH_2M)
    flow, score = (
        NetworkBridge(2, BrownianMotion(SIGMA), width=64, depth=1).forwards for _ in "ab"
    )

    def ours() -> None:
        x0, x1 = pairs.sample(BATCH_2M)
        (bridge.loss(x0, x1, False, None) + bridge.loss(x0, x1, True, None)).backward()

    for method in ("sinkhorn", "exact"):
        matcher = SchrodingerBridgeConditionalFlowMatcher(SIGMA, ot_method=method)

        def theirs(matcher: object = matcher) -> None:
            x0, x1 = (rows[torch.randint(len(rows), (BATCH_2M,))] for rows in (a, b))
            t, xt, ut, noise = matcher.sample_location_and_conditional_flow(  # type: ignore[attr-defined]
                x0, x1, return_noise=True
            )
            lam = matcher.compute_lambda(t)[:, None]  # type: ignore[attr-defined]
            off = (flow(xt, t) - ut).square().mean()
            (off + (lam * score(xt, t) + noise).square().mean()).backward()

        pair = paired(ours, theirs, repeats=25, warmup=3, clock=time.thread_time)
        print(f"[SF]2M step, minibatch of {BATCH_2M}, beside torchcfm ({method}): {pair}",
              flush=True)  # fmt: skip


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    steps()
    transport()
    matching()
    light()


if __name__ == "__main__":
    main()
