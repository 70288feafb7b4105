"""How points of a growing load are judged, drawn and put into a page."""

from __future__ import annotations

from typing import Any
from xml.dom.minidom import parseString

import pytest

from bench import cells, load, run
from bench.growth import axes, chart, page
from bench.growth.axes import Axis, Measured
from bench.report import put

AXES = {axis.name: axis for axis in axes.axes(4)}
RUNS = [
    [Measured("1", {"ingress": 40.0, "valkey": 60.0}, 1.0, 2.0),
     Measured("10", {"ingress": 20.0, "valkey": 30.0}, 3, 9)],
    [Measured("1", {"ingress": 50.0, "valkey": 70.0}, 1.5, 2.5),
     Measured("10", {"ingress": 22.0, "valkey": 31.0}, 4, 80, "50 of 100 a second")],
]  # fmt: skip


def result(**more: Any) -> dict[str, Any]:
    """As bench.measure tells it: 100 requests in 4 s, half a second of CPU."""
    given = {
        "errors": 0, "errors_by_kind": {}, "sent": 100, "unsent": 0, "tokens": 0, "completed": 100, "tokens_per_s": 0.0,
        "requests_per_s": 25.0, "cpu_s": {"ingress": 0.1, "rules+router": 0.3, "valkey": 0.1},
        "others_cpu_s": 0.8, "window_s": 4.0, "latency_ms": {"n": 100, "p50": 2.0, "p99": 5.0}, "lag_ms": {"n": 0},
    }  # fmt: skip
    return {**given, **more}


def judged(**more: Any) -> Measured:
    axis = AXES["prompt"]
    point = axis.points[0]
    return axes.measured(axis, axes.Point(point.label, point.cell, 25), result(**more))


def test_every_axis_of_the_command_line_is_there_and_no_other() -> None:
    assert tuple(AXES) == axes.NAMES


def test_loads_of_every_axis_are_options_of_the_load_generator() -> None:
    for axis in AXES.values():
        for point in axis.points:
            assert load.parse(["--url", "http://x/v1", *cells.load_arguments(point.cell)]).duration > 0


def test_cpu_is_told_per_request_and_by_process() -> None:
    found = judged()
    assert found.cpu == pytest.approx({"ingress": 1.0, "workers": 3.0, "valkey": 1.0})
    assert found.total == pytest.approx(5.0)
    assert found.others == pytest.approx(0.2)
    assert (found.p50, found.p99, found.broke) == (2.0, 5.0, "")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"errors": 2, "errors_by_kind": {"503": 2}}, "2 of 100 answers wrong or lost: 503 2"),
        ({"requests_per_s": 20.0}, "20 of 25 a second"),
        ({"unsent": 1}, "25 of 25 a second"),
    ],
)
def test_a_point_that_did_not_hold_says_why(more: dict[str, Any], words: str) -> None:
    assert judged(**more).broke == words


def test_a_point_without_an_answer_has_no_figures() -> None:
    found = judged(completed=0, latency_ms={"n": 0}, requests_per_s=0.0)
    assert (found.total, found.p50, found.p99) == (None, None, None)
    assert found.broke


def small(*labels: str) -> Axis:
    cell = AXES["rate"].points[0].cell
    return Axis("rate", "Rates", "requests a second", "request", tuple(axes.Point(label, cell, 1) for label in labels))


def test_table_tells_median_and_spread_what_broke_and_what_was_not_driven() -> None:
    lines = page.table(small("1", "10", "100"), RUNS).splitlines()
    assert lines[2] == "| 1 | 110 (100..120) | 45 | 65 | 1.25 (1..1.50) | 2.25 (2..2.50) |  |"
    assert lines[3].endswith("| 1 of 2 runs: 50 of 100 a second |")
    assert lines[-1] == "Not driven any more: 100."
    assert lines[1].count("|") == lines[0].count("|")


def test_figures_taken_beside_other_load_say_so() -> None:
    alone, beside = (Measured("1", others=share) for share in (0.02, 0.5))
    assert page.company([[alone], [alone]]).endswith("2% in the worst.")
    assert page.company([[alone], [beside]]).endswith("50% in the worst: figures beside other load.")


def test_picture_is_svg_with_a_dot_for_every_figure_and_a_cross_where_it_broke() -> None:
    drawn = parseString(page.svg(small("1", "10", "100"), RUNS))
    legend = 3 + 2
    assert len(drawn.getElementsByTagName("circle")) == 2 * 3 + 2 * 2 + legend
    crosses = [path for path in drawn.getElementsByTagName("path") if path.getAttribute("class") == "bad"]
    assert len(crosses) == 2


def test_no_dot_lies_outside_its_picture() -> None:
    for circle in parseString(page.svg(small("1", "10"), RUNS)).getElementsByTagName("circle"):
        assert 0 < float(circle.getAttribute("cx")) < 960
        assert 0 < float(circle.getAttribute("cy")) < 340


@pytest.mark.parametrize(("least", "step"), [(0.7, 1), (1, 1), (1.1, 2), (3, 5), (6, 10), (0.012, 0.02), (420, 500)])
def test_steps_of_a_scale_are_round(least: float, step: float) -> None:
    assert chart.round_step(least) == pytest.approx(step)


def test_scale_of_decades_holds_every_value() -> None:
    scale = chart.scale_of(chart.Panel("", [chart.Line("", [(0.3, 4.0, 2000.0)])], log=True))
    assert scale.ticks == pytest.approx((0.1, 1, 10, 100, 1000, 10_000))
    assert scale.y(0.1) > scale.y(4.0) > scale.y(10_000)


def test_words_go_between_their_marks_and_nothing_else_changes() -> None:
    first = put("# Page\n\nbefore\n", "growth rate", "old words")
    both = put(first, "growth keys", "words of keys")
    changed = put(both, "growth rate", "new words")
    assert changed == both.replace("old words", "new words")
    assert changed.startswith("# Page\n\nbefore\n")
    assert put(changed, "growth rate", "new words") == changed


def test_an_axis_without_plot_is_refused_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.parse(["--only", "streams"])
    assert stopped.value.code == 2
    assert "axes need --plot" in capsys.readouterr().err
    assert run.parse(["--plot", "folder", "--only", "streams"]).runs == 3
