"""One of the processes that `fit(..., devices=...)` starts: the run's folder is all it is told.

python -m reverie.runs.worker '{"out": "RUN", "process": null, "runtime": {}}'
"""

from __future__ import annotations

import json
import sys

from reverie.errors import InputError
from reverie.runs.fitting import fit
from reverie.runs.runtime import Runtime


def main(words: str) -> int:
    """Continue the run, and end where process 0 does; the code is that of the command line."""
    told = json.loads(words)
    try:
        fit(
            out=told["out"],
            resume=True,
            process=told["process"],
            runtime=Runtime(**told["runtime"]),
        )
    except InputError as error:
        print(f"reverie: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
