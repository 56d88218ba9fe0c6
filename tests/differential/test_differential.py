"""A short run of `python -m tests.differential`, and a check that it finds differences."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsicd_embed.stores import columns
from rsicd_embed.stores.segments import segment_files

from .__main__ import main
from .comparison import DifferenceError, check


@settings(
    max_examples=5,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(random=st.randoms(use_true_random=False))
def test_stores_agree_with_the_rows(random: Random) -> None:
    """In scans, conditions, SQL, export and import, for random column types."""
    with TemporaryDirectory() as folder:
        cases = check(random, Path(folder), columns=2, conditions=4)
    assert cases["conditions"] == 4
    assert cases["columns"] >= cases["columns passed on"] >= 6


def test_difference_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of null objects differ if they are left as Arrow stores them."""
    for module in (columns, segment_files):
        monkeypatch.setattr(module, "with_nulls_pushed_down", lambda column: column)
    with pytest.raises(DifferenceError, match=r"exact: .* IN \(.*\): expected .*, found"):
        check(Random(3), tmp_path)


def test_program_writes_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "differential.json"
    options = ["tests.differential", "--cases", "1", "--seed", "5", "-o", str(output)]
    monkeypatch.setattr("sys.argv", options)
    main()
    record = json.loads(output.read_text(encoding="utf-8"))
    assert (record["settings"]["seed"], record["rounds"], record["failures"]) == (5, 1, [])
    assert record["cases"]["total"] == sum(record["cases"].values()) - record["cases"]["total"] > 20
