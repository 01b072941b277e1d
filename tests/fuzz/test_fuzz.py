"""A minute of `make fuzz`; ten minutes of it are a command of their own."""

import pytest

from tests.fuzz.__main__ import fuzz_format
from tests.fuzz.seeds import SEEDS


@pytest.mark.system
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_files_end_in_a_picture_or_a_reason(kind: str) -> None:
    result = fuzz_format(kind, first=100_000, count=2000, seconds=5)
    assert result.failures == []
    assert sum(result.outcomes.values()) > 10
    assert result.outcomes["picture"] < sum(result.outcomes.values())
