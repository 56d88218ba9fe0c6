"""A DataFusion session that can read one table, and do nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rsicd_embed.errors import SQLError
from rsicd_embed.query.error_messages import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyarrow.dataset import Dataset

TABLE = "images"

# Optimiser rules that are switched off.
_RULES_OFF = (
    # Its filters would go to the table in pyarrow's terms, which treat NaN in another way.
    "push_down_filter",
    # They move parts of expressions (`a.geo['lon']`) below joins under invented names, and look for
    # them without the table's alias afterwards: joins of a table with itself fail to plan.
    "extract_leaf_expressions",
    "push_down_leaf_projections",
)


class Session:
    """Plans and runs queries over one table; statements that change anything are refused.

    DataFusion knows no other table then: it has no table of settings or tables, takes no path for a
    table, and has no function that opens a file. Nothing is written to disk either.
    """

    def __init__(self, table: Dataset, functions: Iterable[Any]) -> None:
        from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions

        # One partition keeps rows in the order of the scan, and so sums the same in each run.
        config = SessionConfig().with_target_partitions(1).with_information_schema(False)
        # Sorts pushed below UNION ALL lose the order of columns that are equal in one branch; with
        # one partition there is nothing to gain from it.
        config = config.set("datafusion.optimizer.repartition_sorts", "false")
        self._context = SessionContext(config, RuntimeEnvBuilder().with_disk_manager_disabled())
        for rule in _RULES_OFF:
            self._context.remove_optimizer_rule(rule)
        self._context.register_dataset(TABLE, table)
        for function in functions:
            self._context.register_udf(function)
        self._options = (
            SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
        )
        self._schema = table.schema

    def plan(self, query: str) -> Any:
        """A query as DataFusion's DataFrame, planned to the end; nothing is read yet.

        Raises:
            SQLError: it cannot be understood, or would change something.
        """
        with self.errors(query):
            frame = self._context.sql_with_options(query, self._options)
            frame.execution_plan()
            return frame

    def result_schema(self, frame: Any) -> pa.Schema:
        """The schema of a plan's batches; the plan as written lacks the types that UNION agrees on.

        Raises:
            SQLError: the plan cannot be optimised.
        """
        with self.errors():
            plan = frame.optimized_logical_plan()
            return self._context.create_dataframe_from_logical_plan(plan).schema()

    def stream(self, frame: Any) -> Iterator[pa.RecordBatch]:
        """The result of a plan, batch by batch, as it is computed.

        Raises:
            SQLError: a value that does not fit, such as a string that is cast to a number.
        """
        with self.errors():
            for batch in frame.execute_stream():
                yield batch.to_pyarrow()

    def parse(self, condition: str) -> Any:
        """A condition on the table as an expression."""
        return self._context.table(TABLE).parse_sql_expr(condition)

    @contextmanager
    def errors(self, query: str = "") -> Iterator[None]:
        """Turns what DataFusion raises, perhaps of `query`, into a SQLError of one line."""
        try:
            yield
        except SQLError:
            raise
        except BaseException as error:
            # DataFusion raises plain Exceptions, and a panic in it is no Exception at all.
            if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
                raise
            raise SQLError(explained(error, self._schema, TABLE, query)) from None


def function(
    name: str,
    compute: Callable[..., pa.Array],
    arguments: list[pa.DataType],
    *,
    volatile: bool = False,
) -> Any:
    """A function of SQL that gives a float32; a volatile one is not computed while planning."""
    from datafusion import udf

    kind = "volatile" if volatile else "stable"
    return udf(compute, arguments, pa.float32(), kind, name)
