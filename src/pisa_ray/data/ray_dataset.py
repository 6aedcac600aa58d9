"""Ray data sets, whose blocks stay in the object store."""

from typing import TYPE_CHECKING

import pyarrow as pa

from pisa_ray.data.columns import Columns
from pisa_ray.data.tables import TableSource, hash_tables
from pisa_ray.errors import ConfigError

if TYPE_CHECKING:
    import ray.data


class RaySource(TableSource):
    """A Ray data set, materialised in its own order; workers fetch blocks from the object store.

    Its pieces are the blocks, whose number may depend on the cluster. The rows and their order do not, as long as the
    data set itself has a fixed order (no unseeded shuffle).
    """

    def __init__(self, dataset: "ray.data.Dataset", columns: Columns):
        import ray  # noqa: PLC0415 - only who has a Ray data set needs it

        options = dataset.context.execution_options
        before, options.preserve_order = options.preserve_order, True
        try:
            blocks = dataset.materialize().to_arrow_refs()
        finally:
            options.preserve_order = before
        count = ray.remote(num_cpus=0)(_num_rows)
        counts = ray.get([count.remote(block) for block in blocks])
        self._blocks = [block for block, rows in zip(blocks, counts, strict=True) if rows]
        schema = ray.get(self._blocks[0]).schema if self._blocks else pa.schema([])
        pieces = [rows for rows in counts if rows]
        super().__init__(schema, pieces, columns, "the Ray data set")

    def load(self, piece: int, columns: list[str]) -> pa.Table:
        """Fetch a block."""
        import ray  # noqa: PLC0415 - only who has a Ray data set needs it

        return ray.get(self._blocks[piece]).select(columns)

    def check_pieces(self, columns: list[str], name: str) -> None:
        """Check many blocks at a time where they are, and raise the error of the first bad one."""
        import ray  # noqa: PLC0415 - only who has a Ray data set needs it

        look, source = ray.remote(num_cpus=0)(_failure), ray.put(self)
        found = ray.get([look.remote(source, piece, columns, name) for piece in range(len(self.piece_rows))])
        for failure in found:
            if failure is not None:
                raise ConfigError(failure)

    def has_no_nulls(self, column: str) -> bool:
        """Return False, as blocks have no statistics."""
        return False

    def fingerprint(self) -> str:
        """Hash the schema, the number of rows, and the first and last row."""
        last = len(self._blocks) - 1
        ends = [self.head(list(self._names)), self.load(last, list(self._names)).slice(self.piece_rows[last] - 1)]
        return hash_tables(ends, self.rows)


def _num_rows(table: pa.Table) -> int:
    return int(table.num_rows)


def _failure(source: RaySource, piece: int, columns: list[str], name: str) -> str | None:
    try:
        source.check_piece(piece, columns, name)
    except ConfigError as error:
        return str(error)
    return None
