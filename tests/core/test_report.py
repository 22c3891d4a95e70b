import re
from pathlib import Path
from typing import Any

import pytest

from unlabeled.core.report import Report, Verdict, _of_watch, new_figure, plot_curves, training_report, watch_figure


def a_report() -> Report:
    report = Report(
        "A <b>title</b>", "On 3 things", Verdict("It got worse", "bad"), facts={"AUROC": 0.91234, "images": 12345}
    )
    section = report.section("Numbers").text("Plain & simple")
    section.table(["method", "value"], [["ours", 0.5], ["theirs", float("nan")]], ours=[0])
    section.figure(plot_curves({"loss": [(1, 2.0), (2, 1.0)]}), "The loss falls from 2 to 1")
    return report


def test_what_users_put_in_is_text_never_markup() -> None:
    page = a_report().html()
    assert "A &lt;b&gt;title&lt;/b&gt;" in page
    assert "<b>title</b>" not in page
    assert "Plain &amp; simple" in page


def test_the_page_needs_nothing_from_anywhere() -> None:
    page = a_report().html()
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "<script" not in page
    assert "url(" not in page


def test_numbers_are_shown_as_a_reader_expects() -> None:
    page = a_report().html()
    assert "<b>0.912</b>" in page
    assert "<b>12,345</b>" in page
    assert '<tr class="ours"><td>ours</td><td class="n">0.500</td></tr>' in page
    assert '<td>theirs</td><td class="n">-</td>' in page


def test_only_synthetic_data_is_called_synthetic() -> None:
    report = a_report()
    assert "Synthetic data" not in report.html()
    report.synthetic = True
    assert "Synthetic data" in report.html()


def test_every_figure_says_in_words_what_it_shows(tmp_path: Path) -> None:
    page = a_report().write(tmp_path / "deep" / "report.html").read_text()
    assert page.count('alt="The loss falls from 2 to 1"') == page.count("<img") == 1


def test_figures_stay_out_of_pyplot_s_global_state() -> None:
    import matplotlib.pyplot as plt

    new_figure()
    assert plt.get_fignums() == []


def test_the_page_of_a_training_warns_that_a_falling_loss_proves_nothing() -> None:
    page = training_report(
        title="t",
        subtitle="s",
        says="It learnt.",
        facts={"steps": 20},
        curves={"cards": [(10, 2.0), (20, 1.0)], "merchants": [(10, 3.0), (20, 2.5)]},
        made_of={"lr": 0.001, "seed": 3},
        synthetic=True,
        run_id="abc",
    ).html()
    assert "Training loss by step: cards and merchants" in page
    assert "not that a detector built on it is any good" in page
    assert '<td>lr</td><td class="n">0.001</td>' in page
    assert "run abc" in page


def test_what_a_watch_saw_is_shown_apart_from_the_losses() -> None:
    curves = {"loss": [(1, 2.0)], "watch.effective_rank": [(0, 3.0)], "watch.deviation": [(0, 0.5)]}
    curves["gradient_norm"] = [(1, 7.0)]  # of another kind than a loss: it is tracked, and not drawn beside it
    page = training_report(
        title="t", subtitle="s", says="v", facts={}, curves=curves, made_of={}, synthetic=False, run_id="r"
    )
    watched = page.html()
    assert watched.count("<img") == 2
    assert "Training loss by step: loss<" in watched
    assert "tell its rows apart" in watched
    section = a_report().section("Nothing was watched")
    watch_figure(section, {"loss": [(1, 2.0)]})
    assert section.parts == []


@pytest.mark.parametrize(
    ("curve", "beside", "label"),
    [
        ("watch.linear_probe", ["watch.nearest_neighbours", "watch.linear_probe"], "linear probe"),
        (
            "cards: watch.linear_probe",
            ["cards: watch.nearest_neighbours", "cards: watch.linear_probe"],
            "cards, linear probe",
        ),
        ("machines.watch.effective_rank", ["films.watch.effective_rank", "machines.watch.effective_rank"], "machines"),
        ("cards: watch.projected_rank", ["cards: watch.effective_rank", "cards: watch.projected_rank"],
         "cards, projected rank"),
        ("watch.effective_rank", ["watch.effective_rank"], "effective rank"),
    ],
)  # fmt: skip
def test_a_watched_curve_is_called_by_what_tells_it_from_its_neighbours(
    curve: str, beside: list[str], label: str
) -> None:
    assert _of_watch(curve, beside) == label


def test_every_curve_of_a_figure_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = ("effective_rank", "projected_rank", "deviation", "projected_deviation", "alignment", "linear_probe")
    curves = {f"{kind}: watch.{name}": [(0, 1.0), (9, 2.0)] for kind in ("cards", "merchants") for name in measures}
    drawn: list[list[str]] = []

    def keep(**options: Any) -> Any:
        figure, axes = new_figure(**options)
        drawn.append(axes)
        return figure, axes

    monkeypatch.setattr("unlabeled.core.report.new_figure", keep)
    section = a_report().section("Watched")
    watch_figure(section, curves)
    names = [[line.get_label() for line in axis.lines] for axis in drawn[-1]]
    assert [len(panel) for panel in names] == [4, 4, 2]  # alignment has no panel
    assert all(len(set(panel)) == len(panel) for panel in names)
