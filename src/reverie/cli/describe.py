"""Reading DATA for a command as its flags say, and `reverie describe`."""

from __future__ import annotations

from typing import Any

from reverie.cli import flags
from reverie.cli.console import Console
from reverie.cli.reads import Reads
from reverie.data import Dataset, Reading, Understanding, load, understanding
from reverie.errors import InputError
from reverie.files import read_json, write_json


def reading_of(said: Reads) -> Reading:
    """What the flags say, and where they do not, what a columns.json says."""

    def names(text: str | None) -> tuple[str, ...]:
        return tuple(part for part in (text or "").split(",") if part)

    own = Reading(
        sep=said.sep, decimal=said.decimal, encoding=said.encoding,
        header=None if said.header is None else said.header == "yes",
        missing=names(said.missing), ignore=names(said.ignore), id=names(said.id),
        time=names(said.time), category=names(said.category), size=said.size, mode=said.mode,
        skip_bad=said.skip_bad, angles=said.angles, stored=said.stored or None,
    )  # fmt: skip
    if said.columns is None:
        return own
    values = read_json(said.columns)
    if not isinstance(values, dict) or "columns" not in values:
        raise InputError(f"{said.columns} is not what `reverie describe` writes")
    return own.over(Reading.from_json(values))


def read_for(source: Any, said: Reads, console: Console) -> tuple[Dataset, Understanding]:
    """The data with categories and gaps, and what was made of them, which is said in one line."""
    data = load(source, mixed=True, reading=reading_of(said))
    made = understanding(data)
    console.say(made.line())
    return data, made


def describe(command: flags.Describe, console: Console) -> int:
    made = understanding(load(command.data, mixed=True, reading=reading_of(command.reads)))
    text = made.table()
    if command.out is not None:
        write_json(command.out, made.to_json())
        text += f"\n\n{command.out}: give it to any command with --columns {command.out}"
    flags.print_result(command, text, made.to_json())
    return 0
