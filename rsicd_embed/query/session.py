"""A read-only DataFusion session over one table, and the wording of its errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rsicd_embed.errors import SQLError
from rsicd_embed.stores.filters import (
    UNKNOWN_COLUMN,
    clipped,
    plain_words,
    quoted,
    quotes_hint,
    register_spatial_functions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyarrow.dataset import Dataset

TABLE = "images"
_ONLY_READS = "expected one query that reads (SELECT … FROM images …), found {}"

# Optimiser rules that are disabled.
_RULES_OFF = (
    # It would pass filters to the table as pyarrow expressions, which treat NaN differently.
    "push_down_filter",
    # They move parts of expressions (`a.geo['lon']`) below joins under generated names, then look
    # these up without the table's alias: joins of a table with itself fail to plan.
    "extract_leaf_expressions",
    "push_down_leaf_projections",
)


class Session:
    """Plans and runs queries over one table, and refuses statements that change anything.

    DataFusion knows no other table: the information schema is off, paths are not accepted as
    tables, and no function opens a file. Nothing is written to disk either.
    """

    def __init__(self, table: Dataset, functions: Iterable[Any]) -> None:
        from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions

        # One partition keeps rows in scan order, so sums are reproducible.
        config = SessionConfig().with_target_partitions(1).with_information_schema(False)
        # Sorts pushed below UNION ALL lose the order of columns that are equal in one branch, and
        # with one partition they save nothing.
        config = config.set("datafusion.optimizer.repartition_sorts", "false")
        self._context = SessionContext(config, RuntimeEnvBuilder().with_disk_manager_disabled())
        for rule in _RULES_OFF:
            self._context.remove_optimizer_rule(rule)
        self._context.register_dataset(TABLE, table)
        register_spatial_functions(self._context)
        for function in functions:
            self._context.register_udf(function)
        self._options = (
            SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
        )
        self._schema = table.schema

    def plan(self, query: str) -> Any:
        """Plans a query as a DataFusion DataFrame, without reading rows.

        Raises:
            SQLError: the query is invalid, or would change something.
        """
        with self.errors(query):
            frame = self._context.sql_with_options(query, self._options)
            frame.execution_plan()
            return frame

    def result_schema(self, frame: Any) -> pa.Schema:
        """The schema of a plan's batches; before optimisation it lacks the common types of UNION.

        Raises:
            SQLError: the plan cannot be optimised.
        """
        with self.errors():
            plan = frame.optimized_logical_plan()
            return self._context.create_dataframe_from_logical_plan(plan).schema()

    def stream(self, frame: Any) -> Iterator[pa.RecordBatch]:
        """Yields the result of a plan while it is computed.

        Raises:
            SQLError: an invalid value, such as a word that is cast to a number.
        """
        with self.errors():
            for batch in frame.execute_stream():
                yield batch.to_pyarrow()

    def parse(self, condition: str) -> Any:
        """Parses a condition on the table."""
        return self._context.table(TABLE).parse_sql_expr(condition)

    @contextmanager
    def errors(self, query: str = "") -> Iterator[None]:
        """Turns errors of DataFusion into a one-line SQLError; `query` adds hints."""
        try:
            yield
        except SQLError:
            raise
        except BaseException as error:
            # DataFusion raises plain Exceptions, and its panics are not Exceptions at all.
            if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
                raise
            raise SQLError(_explained(error, self._schema, query)) from None


def function(
    name: str,
    compute: Callable[..., pa.Array],
    arguments: list[pa.DataType],
    *,
    volatile: bool = False,
) -> Any:
    """A SQL function that returns float32; a volatile one is not evaluated during planning."""
    from datafusion import udf

    kind = "volatile" if volatile else "stable"
    return udf(compute, arguments, pa.float32(), kind, name)


def _explained(error: BaseException, schema: pa.Schema, query: str) -> str:
    """Rewrites an error of DataFusion on a query as one line.

    Args:
        error: the error.
        schema: schema of the table.
        query: the SQL text while it is being planned, otherwise "".
    """
    text = str(error)
    columns = ", ".join(quoted(name) for name in schema.names)
    if unknown := re.search(r"table '(?:datafusion\.)?(?:public\.)?(.*?)' not found", text):
        return f"no table {unknown[1]!r}; the only one is {TABLE}"
    if unknown := re.search(r"table function '(.*?)' not found", text):
        return f"no table function {unknown[1]!r}; the only table is {TABLE}"
    if unknown := UNKNOWN_COLUMN.search(text):
        hint = _did_you_mean(unknown[1], schema) or quotes_hint(unknown[1], query)
        return f"no column {clipped(unknown[1])}; {hint}columns of {TABLE}: {columns}"
    if unknown := re.search(r"Invalid function '(.*?)'\.\s*(Did you mean '.*?'\?)?", text):
        return f"no function {unknown[1]!r}; {(unknown[2] or 'see DataFusion SQL').lower()}"
    if wrong := re.search(r"\"?(?:Parser|Tokenizer)Error\(\"(.*)\"\)", text, flags=re.DOTALL):
        return f"syntax error: {' '.join(wrong[1].split())}"
    if refused := re.search(r"(?:DDL|DML|Statement) not supported: (.*)", text):
        return _ONLY_READS.format(refused[1].split("(")[0].strip())
    if refused := re.search(r"Unsupported SQL statement: (\w+)", text):
        return _ONLY_READS.format(refused[1])
    if "single SQL statement" in text:
        return _ONLY_READS.format("several statements")
    if "No SQL statements were provided" in text:
        return _ONLY_READS.format("nothing")
    if "information_schema" in text:
        return f"SHOW is not available; DESCRIBE {TABLE} lists the columns"
    if placeholder := re.search(r"Placeholder\b.*?(\$\w+|\?|:\w+)", text):
        return f"expected a value, found the placeholder {placeholder[1]}; write the value instead"
    if wrong := re.search(r"No function matches the given name and argument types '(.*?)'", text):
        return f"no function {wrong[1]}: it accepts other types; cast them, or see DataFusion SQL"
    return f"not possible: {plain_words(text) or type(error).__name__}"


def _did_you_mean(name: str, schema: pa.Schema) -> str:
    folded = name.strip('"').lower()
    similar = [quoted(known) for known in schema.names if known.lower() == folded]
    return f"did you mean {similar[0]}? " if similar and "." not in name else ""
