"""Score machines: what a network can only copy when it sees a patch, wherever the patch stands.

Kamb & Ganguli (arXiv 2412.20292) constrain the memoriser by locality and by equivariance to
shifts; each constraint has its own exact optimum on N images, and four machines follow:

    IS   ideal            whole images, in place: the memoriser
    ES   equivariant      whole images, shifted in every way (a torus)
    LS   local            each pixel weighs the images by its own P x P patch, in place
    ELS  equivariant,     each pixel weighs all patches of all images; near a zero-padded border
         local            only patches that meet the border in the same way

In the exploding-variance view y = x_t / alpha, s = sigma / alpha, every machine is

    xhat(i) = sum_c w_c(i) c(i),   w_c(i) = softmax_c -|y - c|^2_patch(i) / (2 s^2)

over candidates c: the images, or the images under all cyclic shifts. The squares are summed over
the patch as they are, so that no digits cancel, and the softmax runs over blocks of candidates
with a running maximum, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, convert
from reverie.errors import InputError
from reverie.processes import GaussianProcess
from reverie.processes.gaussian import require_gaussian

PatchSize = int | Callable[[float], int]
BOUNDARIES = ("circular", "zero")


class ScoreMachine(Denoiser):
    """The exact optimum over `images` (N, C, H, W) under locality and shift equivariance.

    patch: odd side P of the window that a pixel sees, None for the whole image, or a function of
        the noise level sigma / alpha that returns P. On a torus a window at least as long as the
        image is the whole image, each pixel counted once.
    equivariant: whether a pixel may copy from patches at other places.
    boundary: "circular" (a torus) or "zero" (the border is visible).
    chunk: float numbers in flight per block of candidates.
    Raises InputError on images without four axes, an even patch or an unknown boundary.
    """

    process: GaussianProcess
    images: Tensor

    def __init__(
        self,
        process: GaussianProcess,
        images: Tensor,
        patch: PatchSize | None = None,
        *,
        equivariant: bool = False,
        boundary: str = "circular",
        chunk: int = 2**22,
    ) -> None:
        super().__init__()
        if images.ndim != 4 or len(images) == 0:
            raise InputError(f"a score machine needs images (N, C, H, W), not {images.shape}")
        if boundary not in BOUNDARIES:
            raise InputError(f"boundary={boundary!r}: choose one of {', '.join(BOUNDARIES)}")
        if patch is None and equivariant and boundary == "zero":
            raise InputError("whole images have no shifts on a zero-padded frame: use circular")
        if not process.isotropic:
            raise InputError("a score machine needs one noise level for all pixels")
        self.process, self.patch = process, patch
        self.equivariant, self.boundary, self.chunk = equivariant, boundary, chunk
        self.register_buffer("images", process.space.check(images), persistent=False)
        self.size = (images.shape[2], images.shape[3])
        if isinstance(patch, int):
            self._windows(patch)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Posterior mean under the machine's constraints, (B, C, H, W)."""
        alpha, sigma = self.process.scales(t, state)
        spread = (sigma / alpha).expand(len(state), 1, 1, 1).flatten()
        view = state / alpha
        sizes = [self._side(float(s)) for s in spread]
        guess = torch.empty_like(state)
        for side in set(sizes):
            rows = torch.tensor([k for k, own in enumerate(sizes) if own == side])
            guess[rows] = self._average(view[rows], spread[rows], side)
        return guess

    def _side(self, spread: float) -> int | None:
        return self.patch(spread) if callable(self.patch) else self.patch

    def _average(self, view: Tensor, spread: Tensor, side: int | None) -> Tensor:
        """Softmax average over all candidates by blocks: (B, C, H, W)."""
        batch, channels = view.shape[:2]
        pixels = self.size[0] * self.size[1]
        window = self._window_sum(side, view)
        columns = 1 if window is None else pixels  # one weight per image, or one per pixel
        query = view.reshape(batch, 1, channels, pixels)
        scale = (0.5 / spread.square())[:, None, None]
        top = view.new_full((batch, columns), -torch.inf)
        total, mean = torch.zeros_like(top), view.new_zeros(batch, channels, pixels)
        for block, allowed in self._candidates(view, side):
            points = block.reshape(len(block), channels, pixels)
            square = (query - points).square().sum(2)  # (B, n, HW)
            square = square.sum(2, keepdim=True) if window is None else square @ window
            logits = -square * scale
            if allowed is not None:
                logits = logits.masked_fill(~allowed, -torch.inf)
            higher = torch.maximum(top, logits.amax(1))
            # finite from the first block on: the unshifted images are allowed everywhere
            decay, weights = (top - higher).exp(), (logits - higher[:, None]).exp()
            total = total * decay + weights.sum(1)
            shares = weights.expand(-1, -1, pixels)
            mean = mean * decay[:, None] + torch.einsum("bni,nci->bci", shares, points)
            top = higher
        return (mean / total[:, None]).reshape(view.shape)

    def _candidates(
        self, view: Tensor, side: int | None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Blocks (n, C, H, W) of candidates, with the pixels (HW,) allowed to copy from them."""
        step = max(1, self.chunk // view.numel())
        height, width = self.size
        for down in range(height if self.equivariant else 1):
            for right in range(width if self.equivariant else 1):
                allowed = None
                if self.equivariant and self.boundary == "zero":
                    assert side is not None
                    allowed = self._same_border(side, down, right).to(view.device)
                    if not allowed.any():
                        continue
                for block in self.images.to(view.dtype).split(step):
                    yield block.roll((-down, -right), (2, 3)), allowed

    def _same_border(self, side: int, down: int, right: int) -> Tensor:
        """Pixels (HW,) whose window is cut by the border exactly as that of the shifted pixel."""
        same = []
        for length, shift in zip(self.size, (down, right), strict=True):
            place, reach = torch.arange(length), side // 2
            cut = torch.stack([place.clamp(max=reach), (length - 1 - place).clamp(max=reach)])
            same.append((cut == cut.roll(-shift, 1)).all(0))
        return (same[0][:, None] & same[1][None]).flatten()

    def _window_sum(self, side: int | None, like: Tensor) -> Tensor | None:
        """Matrix (HW, HW) of ones where two pixels share a window; None for the whole image."""
        if side is None:
            return None
        rows, columns = self._windows(side)
        if rows.all() and columns.all():
            return None
        return torch.kron(rows.to(like), columns.to(like))

    def _windows(self, side: int) -> list[Tensor]:
        if side < 1 or (side % 2 == 0):
            raise InputError(f"the patch side is {side}; it must be odd and positive")
        out = []
        for length in self.size:
            apart = (torch.arange(length)[:, None] - torch.arange(length)).abs()
            if self.boundary == "circular":
                apart = torch.minimum(apart, length - apart)
            out.append(apart <= side // 2)
        return out


def ideal(process: GaussianProcess, images: Tensor) -> ScoreMachine:
    """IS: the memoriser on images (N, C, H, W)."""
    return ScoreMachine(process, images)


def equivariant(process: GaussianProcess, images: Tensor) -> ScoreMachine:
    """ES: the memoriser of the images under all cyclic shifts."""
    return ScoreMachine(process, images, equivariant=True)


def local(
    process: GaussianProcess, images: Tensor, patch: PatchSize, boundary: str = "circular"
) -> ScoreMachine:
    """LS: each pixel weighs the images by its own patch."""
    return ScoreMachine(process, images, patch, boundary=boundary)


def equivariant_local(
    process: GaussianProcess, images: Tensor, patch: PatchSize, boundary: str = "circular"
) -> ScoreMachine:
    """ELS: each pixel weighs all patches of all images."""
    return ScoreMachine(process, images, patch, equivariant=True, boundary=boundary)


@torch.no_grad()
def calibrate_patch(
    network: Denoiser,
    machine: Callable[[int], Denoiser],
    states: Sequence[Tensor],
    t: Sequence[float],
    sides: Sequence[int],
) -> list[int]:
    """Patch side per level at which `machine(side)` guesses the noise most like `network`.

    states: L batches (B, C, H, W) on the network's own path, at process times t (L,). Per level
    the side with the largest median over the batch of the cosine between the two noise guesses
    (the calibration of Kamb & Ganguli). Raises InputError on lists of different length.
    """
    if len(states) != len(t) or not sides:
        raise InputError("calibration needs one batch of states per time, and some sides")
    machines = [machine(side) for side in sides]
    best = []
    for state, time in zip(states, t, strict=True):
        wanted = _noise_guess(network, state, time)
        cosines = [
            torch.cosine_similarity(_noise_guess(m, state, time), wanted, dim=1).median()
            for m in machines
        ]
        best.append(sides[int(torch.stack(cosines).argmax())])
    return best


def _noise_guess(denoiser: Denoiser, state: Tensor, time: float) -> Tensor:
    process = require_gaussian(denoiser.process, "the guess of the noise")
    t = torch.full((len(state),), float(time), dtype=state.dtype)
    return convert(denoiser(state, t), state, t, process, "clean", "noise").flatten(1)
