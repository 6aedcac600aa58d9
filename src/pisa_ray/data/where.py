"""The name of a cell in error messages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Where:
    """The place of a table's rows in the data.

    Attributes:
        data: What to call the data.
        first_row: The number of the table's first row in the data.
    """

    data: str
    first_row: int = 0

    def cell(self, row: int, column: str) -> str:
        """Return the name of a cell, as the beginning of a sentence.

        Args:
            row: The row number in the table.
            column: The column's name.
        """
        return f"In {self.data}, row {self.first_row + row} of column {column!r}"
