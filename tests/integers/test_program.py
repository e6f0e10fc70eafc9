"""Programs as values: what a tensor of one is stored as."""

import numpy as np
import pytest

from equint.errors import EquintError
from equint.integers.program import Program


def test_what_has_no_grid_is_named() -> None:
    program = Program((), ("ids",), ("ids",), {}, types={"ids": "int32"})
    assert program.storage("ids") == np.int32
    with pytest.raises(EquintError, match="ids: holds int32 and has no grid"):
        program.grid("ids")
