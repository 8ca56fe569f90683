"""The command line: the library's calls, with progress, summaries and one-sentence errors.

Exit codes: 0 done, 1 `audit --fail-on` found what it was told to, 2 bad input,
3 a fault of the program, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import tyro

# Threads that spin while they wait stall one another when the cores are shared: everything then
# runs ten times slower. This must stand before torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from reverie import __version__
from reverie.cli import flags
from reverie.errors import InputError


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `reverie`; raises SystemExit with the documented codes.

    arguments: the words after `reverie`, default what was typed. An InputError ends in code 2 and
    one sentence on the standard error.

    >>> from reverie.cli import main
    >>> try:
    ...     main(["audit", "--train", "nowhere.csv", "--holdout", "nowhere.csv", "--quiet"])
    ... except SystemExit as left:
    ...     print(left.code)  # bad input; the sentence goes to the standard error
    2
    """
    typed = sys.argv[1:] if arguments is None else arguments
    if typed in (["--version"], ["-V"]):
        print(f"reverie {__version__}")
        sys.exit(0)
    command = parsed(_joined(list(typed)))
    if isinstance(command, flags.Completion):  # tyro prints the script and leaves
        parsed(["--tyro-print-completion", command.shell])
    # here, so that help and a wrong flag need no torch
    from reverie.cli import (
        audit_commands,
        bridge_command,
        commands,
        console,
        describe,
        doctor,
        maxcut_command,
        rank_command,
        sample_command,
        target_command,
    )
    from reverie.runs.ranks import SaidElsewhereError, launched

    run = {
        flags.Fit: commands.fit,
        flags.Sample: sample_command.sample,
        flags.Audit: audit_commands.audit,
        flags.PlanSteps: commands.plan,
        flags.Compare: commands.compare,
        flags.Rank: rank_command.rank,
        flags.Predict: commands.predict,
        flags.Sweep: commands.sweep,
        flags.Describe: describe.describe,
        flags.Export: commands.export,
        flags.Bridge: bridge_command.bridge,
        flags.TargetOf: target_command.target,
        flags.MaxCut: maxcut_command.maxcut,
        flags.Demo: commands.demo,
        flags.Reproduce: commands.reproduce,
        flags.Doctor: doctor.doctor,
    }[type(command)]
    console.TYPED[:] = ["reverie", *typed]
    try:
        if (seed := getattr(command, "seed", 0)) < 0:
            raise InputError(f"--seed is {seed}; it must not be negative")
        quiet = command.common.quiet or command.common.json or launched()[0] > 0
        shown = console.Console(quiet)
        console.follow(shown)
        code = run(command, shown)
    except SaidElsewhereError:
        code = 2
    except InputError as error:
        print(f"reverie: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print("reverie: stopped", file=sys.stderr)
        code = 130
    except Exception as error:
        if os.environ.get("REVERIE_DEBUG"):
            raise
        kind = type(error).__name__
        print(
            f"reverie: this is a fault of the program, not of your input ({kind}: {error}); "
            "REVERIE_DEBUG=1 shows where",
            file=sys.stderr,
        )
        code = 3
    sys.exit(code)


def parsed(arguments: list[str]) -> Any:
    """The command that the arguments spell; SystemExit with 2 where they spell none."""
    return tyro.cli(
        flags.Command,  # type: ignore[arg-type]
        prog="reverie",
        description="Diffusion models, and the loss curve that tells whether they copy their "
        "training data, and how many steps they need. `reverie --version` tells which this is.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _joined(arguments: list[str]) -> list[str]:
    """Arguments with `--missing -9999,None` as one, which would read as a flag otherwise."""
    result: list[str] = []
    for argument in arguments:
        if result and result[-1] == "--missing" and re.match(r"-[\d.]", argument):
            result[-1] += f"={argument}"
        else:
            result.append(argument)
    return result
