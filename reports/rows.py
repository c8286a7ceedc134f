"""Rows of a view as CSV and JSON: unrounded values, nothing for what is missing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def to_csv(columns: Sequence[str], found: Iterable[Mapping[str, Any]]) -> str:
    """A head and one line a row; a missing value is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in found:
        writer.writerow(["" if row[name] is None else row[name] for name in columns])
    return out.getvalue()


def to_json(caption: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The rows with the caption that belongs to them."""
    return json.dumps({"caption": caption, "rows": list(found)}, indent=2, ensure_ascii=False) + "\n"
