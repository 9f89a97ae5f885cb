"""What the tables are made of beyond Django's own: exact names, and words that can be searched."""

from __future__ import annotations

from typing import Any, Final

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.ddl_references import Statement

# (names of the configuration that splits at anything but letters and digits)
TO_WORDS: Final = "to_tsvector('simple'::regconfig, %s::text)"
TO_QUERY: Final = "websearch_to_tsquery('simple'::regconfig, %s::text)"
# (the schema editor executes what it is given)
NOTHING: Final = Statement("SELECT 1")


class Unseen(models.Model):
    """A table without a page of its own: nobody needs permissions for it."""

    class Meta:
        abstract = True
        default_permissions = ()


class WordsField(models.TextField):  # type: ignore[type-arg]
    """A text of which the words are kept, for the lookup ``matches``, where the database can.

    That is PostgreSQL. There the column is a ``tsvector``: the words in lower case with their
    places, without a language's rules, since prompts are in any. Elsewhere it stays empty.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        return "tsvector" if connection.vendor == "postgresql" else super().db_type(connection)

    def get_placeholder(self, value: Any, compiler: Any, connection: BaseDatabaseWrapper) -> str:
        """What stands for a value in a statement; Django before 6.1 asks for it."""
        return TO_WORDS if connection.vendor == "postgresql" else "%s"

    def get_placeholder_sql(
        self, value: Any, compiler: Any, connection: BaseDatabaseWrapper
    ) -> tuple[str, list[Any]]:
        """The same with its parameters, as Django asks from 6.1 on."""
        sql, params = compiler.compile(value) if hasattr(value, "as_sql") else ("%s", [value])
        return self.get_placeholder(value, compiler, connection) % sql, list(params)


@WordsField.register_lookup
class Matches(models.Lookup):
    """``words__matches="late refund"``: both words, in any place.

    As in a search on the web: ``"late refund"`` in quotes is a phrase, ``-refund`` leaves out, and
    ``or`` is an alternative.
    """

    lookup_name = "matches"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        column, params = self.process_lhs(compiler, connection)
        return f"{column} @@ {TO_QUERY}", [*params, self.rhs]


class WordsIndex(models.Index):
    """A GIN index where there are words; where there are none, no index."""

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        if schema_editor.connection.vendor != "postgresql":
            return NOTHING
        return super().create_sql(model, schema_editor, using=" USING gin", **kwargs)

    def remove_sql(self, model: Any, schema_editor: Any, **kwargs: Any) -> Any:
        if schema_editor.connection.vendor != "postgresql":
            return NOTHING
        return super().remove_sql(model, schema_editor, **kwargs)


class ExactCharField(models.CharField):  # type: ignore[type-arg]
    """A CharField that compares to the letter on every database.

    MariaDB and MySQL compare text without regard to case, accents and trailing spaces unless told
    otherwise, and would remove the entries of ``"Acme"`` with those of ``"acme "``. All databases
    sort it alike, too.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            mariadb = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        elif connection.vendor == "postgresql":
            # By code points, as the others: so an index finds values by their beginning.
            parameters["collation"] = "C"
        return parameters
