"""Several counts by one query, none of which goes on for long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.db import connections

# From here on it is "so many and more".
MOST: Final = 10_000


def count_at_most(queries: Mapping[str, Any], most: int = MOST) -> dict[str, int]:
    """How many rows each of these query sets of one database has; `most` + 1 where more."""
    parts, parameters = [], []
    for rows in queries.values():
        compiler = rows.values("pk")[: most + 1].query.get_compiler(rows.db)
        sql, some = compiler.as_sql()
        parts.append(f"(SELECT COUNT(*) FROM ({sql}) counted)")  # noqa: S608 - of the ORM's making
        parameters += some
    alias = next(iter(queries.values())).db
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(parts)}", parameters)
        return dict(zip(queries, map(int, cursor.fetchone()), strict=True))
