"""How error messages name a cell."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """Where a table's rows stand in the data.

    Attributes:
        data: What the data are called.
        first_row: The number that the table's first row has in them.
    """

    data: str
    first_row: int = 0

    def cell(self, row: int, column: str) -> str:
        """Names a cell, as the beginning of a sentence.

        Args:
            row: Row number in the table.
            column: The column's name.
        """
        return f"In {self.data}, row {self.first_row + row} of column {column!r}"
