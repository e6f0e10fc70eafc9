"""What the system says of this process, before and after."""

import sys
from pathlib import Path

import numpy as np
import pytest

from equint.runtime.memory import give_back


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_lies_between_arrays_that_live_on_is_given_back() -> None:
    every = [np.ones(10_000) for _ in range(2000)]  # 80 kB each: too small for a mapping of its own
    kept, full = every[::50], resident()
    del every
    give_back()
    assert resident() < full - 100_000_000
    assert all(np.all(one == 1) for one in kept)
