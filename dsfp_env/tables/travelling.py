"""A table on its way to other processes and machines: its arrays travel, not the name of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsfp_env.tables.files import Arrays
from dsfp_env.tables.table import Table


class TravellingTable:
    """A table that pickles whole. As tensors its arrays are mapped where it comes to, once for all processes.

    Args:
        table: From `load_table`.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = [torch.from_numpy(np.array(array)) for array in self.table.arrays]
        return _arrived, (str(self.table.folder), self.table.meta, arrays)


def _arrived(folder: str, meta: dict[str, Any], arrays: list[torch.Tensor]) -> TravellingTable:
    return TravellingTable(Table(Path(folder), (meta, Arrays(*(array.numpy() for array in arrays)))))
