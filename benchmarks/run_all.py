"""Run every benchmark, each in a process of its own."""

import subprocess
import sys
from pathlib import Path


def main():
    here = Path(__file__).parent
    for path in sorted(here.glob("bench_*.py")):
        print(f"# {path.stem}", flush=True)
        subprocess.run([sys.executable, path.name], cwd=here, check=True)


if __name__ == "__main__":
    main()
