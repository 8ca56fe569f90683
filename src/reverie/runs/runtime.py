"""How a fit runs, and not what it makes: nothing of this is saved with the run.

A run resumes with other processes, compiled or not, watched or not; what decides the weights
beyond the last bits stands in `FitConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass

from reverie.errors import InputError


@dataclass(frozen=True)
class Runtime:
    """How a fit runs: processes, compilation, memory layout, trackers. Never saved.

    >>> from reverie.runs.runtime import Runtime
    >>> Runtime(devices=2).check().devices
    2
    """

    devices: int = 1
    """Processes to start here, each with its share of every batch: one a GPU with --device cuda,
    else on the CPU. torchrun and accelerate launch start them on many machines; leave this out
    there."""
    shard_optimiser: bool = False
    """Each process keeps the optimiser's averages of its share of the weights only."""
    compile: bool = False
    """Compile the training step (torch.compile); the curve is measured without."""
    channels_last: bool = False
    """Keep pictures and volumes with their channels last in memory."""
    track: str | None = None
    """Send metrics to tensorboard, wandb, trackio or mlflow, or several joined by commas
    (accelerate's trackers; nothing is sent unless this asks for it). In Python a tracker of
    accelerate's kind will do."""
    wait: float = 600.0
    """Seconds that a process waits for another before the fit gives up."""

    def check(self) -> Runtime:
        """Return self, or raise InputError that names the first bad setting."""
        if self.devices < 1:
            raise InputError(f"devices is {self.devices}; it must be at least 1")
        if not self.wait > 0:
            raise InputError(f"wait is {self.wait:g}; it must be positive")
        return self
