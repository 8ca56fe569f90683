"""Type a page of the documentation as it stands: its python in one namespace, its shell lines."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from reverie.cli import main

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run_page(page: Path) -> int:
    """Run every block of `page` in the working directory; returns how many there were.

    Python blocks share a namespace. Lines of `reverie ...` run in this process and must exit with
    0; others in a shell. A block that is not to be run is a ```text block.
    """
    space: dict[str, object] = {"__name__": f"page_{page.stem}"}
    count = 0
    for language, text in BLOCK.findall(page.read_text()):
        count += 1
        if language == "python":
            exec(compile(text, f"{page.name}, block {count}", "exec"), space)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            _type(line)
    return count


def _type(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] != "reverie":
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(line, shell=True, check=True, env=os.environ | {"PATH": beside})
        return
    code = 0
    try:
        main(words[1:])
    except SystemExit as left:
        code = left.code or 0
    assert code == 0, f"{line} exited with {code}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {run_page(Path(name).resolve())} blocks", flush=True)
