"""Penstock in a Ray pipeline of one's own: a class for ``Dataset.map_batches``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock_server.bulk.arrow import pa
from penstock_server.bulk.carried import RESERVED
from penstock_server.bulk.limits import BulkLimits
from penstock_server.bulk.result_table import ERROR_FIELDS, answer_field, result_batch
from penstock_server.bulk.results import ResultRows
from penstock_server.bulk.rows import InputRow
from penstock_server.bulk.spec_checks import check_spec
from penstock_server.bulk.spool import Window
from penstock_server.bulk.tables import READ_ROWS, check_columns, names_of, rows_of
from penstock_server.domain.errors import InvalidRequest
from penstock_server.domain.job import FileFormat, InputColumns
from penstock_server.ray.model import ModelOrder, build_computer, open_model
from penstock_server.ray.rows import window_of

# Those that an answer brings; a pipeline's own ``row`` and ``key`` are carried like any other.
_ANSWER_NAMES = RESERVED - {"row", "key"}


class Predictor:
    """Computes tables of texts. Each instance has an engine of one thread, so one goes on each core.

    ::

        dataset.map_batches(
            Predictor,
            fn_constructor_args=[ModelOrder(models="/models", model="minilm")],
            fn_constructor_kwargs={"text_column": "review"},
            batch_format="pyarrow",
            batch_size=4096,
            compute=ray.data.ActorPoolStrategy(size=16),
        )

    Rows of a table are sorted by length, so large ones waste less on padding: 4,096 rows about 1.5 %.

    Args:
        order: The model, which must be in the same folder on every node.
        text_column: The text: strings or UTF-8 bytes.
        pair_column: The second text of a pair; None for none.
        carry: Columns that go along unchanged; None for all but the texts.

    Raises:
        UnknownModel, ModelBroken: The model is not there, or cannot be loaded.
        TaskNotSupported, NotBuilt, InvalidRequest: It cannot do what is asked.
    """

    def __init__(
        self,
        order: ModelOrder,
        *,
        text_column: str = "text",
        pair_column: str | None = None,
        carry: Sequence[str] | None = None,
    ) -> None:
        model = open_model(order.manifest())
        options = order.options(model.manifest)
        self._columns = InputColumns(text=text_column, pair=pair_column)
        check_spec(model, options.task, self._columns, FileFormat.ARROW, order.tokens_max)
        self._carry = carry
        self._limits = BulkLimits()
        self._schema: Any = pa.schema([answer_field(options.task.task), *ERROR_FIELDS])
        self._computer = build_computer(model, options)

    def __call__(self, table: Any) -> Any:
        """Computes a table.

        A bad row fails alone, with the code and sentence of a job's; the sentence counts rows of this table.

        Args:
            table: A ``pyarrow.Table`` with the text columns.

        Returns:
            A ``pyarrow.Table`` with as many rows, in order: the carried columns, then ``embedding`` or
            ``labels``, ``error_code`` and ``error``, as in a job's Parquet files.

        Raises:
            InvalidRequest: A column is missing, has a type that cannot be used, or a name of the answer's.
        """
        carried = self._carried_names(table)
        part = self._computer.compute(self._window(table))
        rows = ResultRows(0, np.arange(part.rows), part, (), ())
        answers = result_batch(rows, self._schema)
        columns = [*(table.column(name) for name in carried), *answers.columns]
        return pa.table(columns, names=[*carried, *self._schema.names])

    def _carried_names(self, table: Any) -> list[str]:
        texts = (self._columns.text, self._columns.pair)
        names = [name for name in table.column_names if name not in texts]
        names = names if self._carry is None else list(self._carry)
        for name in names:
            if name in _ANSWER_NAMES:
                raise InvalidRequest(f"Column {name!r} is what the answer is called; rename or drop it.")
            if name not in table.column_names:
                raise InvalidRequest(f"There is no column {name!r} to carry.")
        return names

    def _window(self, table: Any) -> Window:
        check_columns(table.schema, self._columns)
        wanted = table.select(names_of(self._columns)).combine_chunks()
        rows: list[InputRow] = []
        for batch in wanted.to_batches(max_chunksize=READ_ROWS):
            rows += rows_of(batch, len(rows), self._columns, self._limits)
        return window_of(rows, has_pairs=self._columns.pair is not None)
