"""Bytes of collective operations, read from the text of a compiled program."""

from __future__ import annotations

import pytest

from rsicd_embed.train.tpu_plan.step_costs import collective_bytes


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "  %all-reduce.3 = f32[1024]{0:T(1024)} all-reduce(%a), channel_id=1",
            {"all-reduce": 4096},
        ),
        (
            "  %all-gather.2 = bf16[1024,64]{0,1:T(8,128)(2,1)} all-gather(%f), dimensions={0}",
            {"all-gather": 1024 * 64 * 2},
        ),
        (
            "  ROOT %r = (f32[8,4]{1,0:T(8,128)S(1)}, s32[]{:T(128)}, /*index=5*/pred[3]{0}) "
            "all-reduce(%x, %y, %z), to_apply=%add",
            {"all-reduce": 8 * 4 * 4 + 4 + 3},
        ),
        ("  %p.1 = s4[5]{0} collective-permute(%x)", {"collective-permute": 3}),
        ("%p = c64[2,<=3] all-to-all(%x)", {"all-to-all": 48}),
        ("  rs = f8e4m3fn[16]{0} reduce-scatter(x), dimensions={0}", {"reduce-scatter": 16}),
        # An asynchronous pair counts at its end, which holds the result.
        ("  %s = (f32[2]{0}, f32[16]{0}) all-gather-start(%x)", {}),
        ("  %d = f32[16]{0} all-gather-done(%s)", {"all-gather": 64}),
        # Not collectives, despite their names or operands.
        ("  %all-reduce.7 = f32[4]{0} fusion(%all-reduce.3), calls=%all-reduce(f32[4])", {}),
        ('  %f = f32[4]{0} add(%a, %b), metadata={op_name="x = f32[4] all-reduce("}', {}),
        ("%region.1 (a: f32[], b: f32[]) -> f32[] {", {}),
    ],
)
def test_collectives_in_a_line(line: str, expected: dict[str, int]) -> None:
    assert collective_bytes(line) == expected


def test_collectives_in_a_program() -> None:
    text = """HloModule jit_run, num_partitions=8

ENTRY %main (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %g = f32[32]{0} all-gather(%p), dimensions={0}
  %r.1 = f32[32]{0} all-reduce(%g), to_apply=%add
  ROOT %r.2 = f32[4]{0} all-reduce(%p), to_apply=%add
}
"""
    assert collective_bytes(text) == {"all-gather": 128, "all-reduce": 144}


def test_loops_count_once_per_iteration() -> None:
    trips = 'backend_config={"known_trip_count":{"n":"8"}}'
    text = f"""HloModule jit_run, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {{
  ROOT %s = f32[] add(%a, %b)
}}

%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {{
  %r = f32[4]{{0}} all-reduce(%x), to_apply=%add
}}

%outer (p: (s32[], f32[4])) -> (s32[], f32[4]) {{
  %w.2 = (s32[], f32[4]) while(%t), condition=%less, body=%inner, {trips}
  %g = f32[2]{{0}} all-gather(%x), dimensions={{0}}
}}

%called (p: f32[4]) -> f32[4] {{
  %g.2 = f32[1]{{0}} all-gather(%x), dimensions={{0}}
}}

%unused (p: f32[4]) -> f32[4] {{
  %g.3 = f32[1000]{{0}} all-gather(%x), dimensions={{0}}
}}

ENTRY %main (p: f32[4]) -> f32[4] {{
  %w = (s32[], f32[4]) while(%t), condition=%less, body=%outer, {trips}
  %w.3 = (s32[], f32[4]) while(%t), condition=%less, body=%inner
  ROOT %c = f32[4]{{0}} call(%p), to_apply=%called
}}
"""
    assert collective_bytes(text) == {"all-reduce": 65 * 16, "all-gather": 8 * 8 + 4}
