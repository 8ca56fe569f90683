"""The command line."""

from reverie import lazily as _lazily
from reverie.cli.entry import main as main

__getattr__ = _lazily(
    __name__,
    {},
    {
        "Audit": "reverie.cli.flags:Audit",
        "Command": "reverie.cli.flags:Command",
        "Common": "reverie.cli.flags:Common",
        "Compare": "reverie.cli.flags:Compare",
        "Describe": "reverie.cli.flags:Describe",
        "Demo": "reverie.cli.flags:Demo",
        "Export": "reverie.cli.flags:Export",
        "Fit": "reverie.cli.flags:Fit",
        "PlanSteps": "reverie.cli.flags:PlanSteps",
        "Predict": "reverie.cli.flags:Predict",
        "Reproduce": "reverie.cli.flags:Reproduce",
        "Sample": "reverie.cli.flags:Sample",
        "Sweep": "reverie.cli.flags:Sweep",
        "print_result": "reverie.cli.flags:print_result",
    },
)
