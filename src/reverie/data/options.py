"""What a user says about a file, where the readers should not decide by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from reverie.errors import InputError

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|", "blanks": " ", "\\t": "\t"}


@dataclass(frozen=True)
class Reading:
    r"""How to read a source; what is None or empty is decided from the data and said.

    sep: between cells, or comma, tab, semicolon, bar, blanks. decimal: the decimal mark. header:
    whether the first line names the columns. missing: words and numbers that stand for a missing
    cell, beside those that always do. ignore, id, category: names of columns, or their places from
    0. time: the same, each with its form if need be, as `seen=%d/%m/%Y`. size: pictures are
    brought to this height and width. mode: rgb or grey. skip_bad: leave out pictures that cannot
    be read. angles: degrees or radians. stored: whether rows stay on disk and are read in pieces;
    None leaves it to their size.
    InputError on a separator, decimal mark, encoding, mode, angle or size that is none.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from reverie.data import Reading, load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.txt.csv")
    ...     _ = path.write_text("x;y\n1,5;2\n3;4,5\n")
    ...     load(path, reading=Reading(sep=";", decimal=",")).values
    array([[1.5, 2. ],
           [3. , 4.5]])
    """

    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: bool | None = None
    missing: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    size: int | None = None
    mode: str | None = None
    skip_bad: bool = False
    angles: str | None = None
    stored: bool | None = None

    def __post_init__(self) -> None:
        for name in ("missing", "ignore", "id", "time", "category"):
            value = getattr(self, name)
            parts = value.split(",") if isinstance(value, str) else value
            object.__setattr__(self, name, tuple(str(part).strip() for part in parts))
        sep = SEPARATORS.get(self.sep or "", self.sep)
        if sep is not None and len(sep) != 1:
            raise InputError(f"--sep {self.sep!r}: give one character, or {', '.join(SEPARATORS)}")
        object.__setattr__(self, "sep", sep)
        if self.decimal not in (None, ".", ","):
            raise InputError(f"--decimal {self.decimal!r}: the decimal mark is a point or a comma")
        if self.mode not in (None, "rgb", "grey"):
            raise InputError(f"--mode {self.mode}: pictures are read as rgb or grey")
        if self.angles not in (None, "degrees", "radians"):
            raise InputError(f"--angles {self.angles}: angles are in degrees or radians")
        if self.size is not None and self.size < 1:
            raise InputError(f"--size {self.size}: it must be at least 1")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError as error:
            raise InputError(f"--encoding {self.encoding}: no such encoding is known") from error

    def names(self, role: str) -> set[str]:
        """The columns that are said to be `ignore`, `id`, `time` or `category`."""
        return {name.partition("=")[0] if role == "time" else name for name in getattr(self, role)}

    def time_form(self, name: str) -> str:
        """The form in which the times of a column are written, where it is said."""
        for text in self.time:
            column, _, form = text.partition("=")
            if column == name:
                return form
        return ""

    def to_json(self) -> dict[str, Any]:
        """Only what was said."""
        default = asdict(Reading())
        return {k: v for k, v in asdict(self).items() if v != default[k]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Reading:
        """What `to_json` wrote, or the `columns.json` of `reverie describe`."""
        values = dict(values or {})
        columns = values.pop("columns", [])
        known = {f.name for f in fields(cls)}
        try:
            given: dict[str, Any] = {k: v for k, v in values.items() if k in known}
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
            said = cls(**given)
            return replace(said, **_roles(columns, said))
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(f"what was understood of columns is damaged: {error}") from error

    def over(self, other: Reading) -> Reading:
        """What stands here, and where nothing does, what `other` says."""
        joined: dict[str, Any] = {
            f.name: getattr(self, f.name) or getattr(other, f.name)
            for f in fields(self)
            if f.name not in ("header", "missing", "stored")
        }
        header = other.header if self.header is None else self.header
        joined["stored"] = other.stored if self.stored is None else self.stored
        missing = tuple(dict.fromkeys((*self.missing, *other.missing)))
        return Reading(**joined, header=header, missing=missing)


def _roles(columns: Sequence[Mapping[str, Any]], said: Reading) -> dict[str, tuple[str, ...]]:
    """The roles that a list of understood columns gives, after those that are said."""
    found: dict[str, list[str]] = {
        role: list(getattr(said, role)) for role in ("ignore", "id", "time", "category", "missing")
    }
    for column in columns:
        name, kind, form = column["name"], column["kind"], column.get("form")
        if kind in ("ignore", "category"):
            found[kind].append(name)
        elif kind == "identifier":
            found["id"].append(name)
        elif kind == "time":
            found["time"].append(f"{name}={form}" if form else name)
        found["missing"] += [word for word in column.get("missing_words", []) if word]
    return {role: tuple(dict.fromkeys(names)) for role, names in found.items()}
