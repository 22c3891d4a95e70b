"""What a training costs in time, energy and money, by hand."""

import pytest

from unlabeled.core.budget import Budget, Rates, Spent, compare, priced, total, totals
from unlabeled.core.errors import UnlabeledError


def budget(**changed: object) -> Budget:
    given = {
        "label": "training", "steps": 100, "tokens": 1e6, "flops": 1e12, "seconds": 1800.0, "step_seconds": 18.0,
        "save_seconds": 0.0, "learning_bytes": 400, "peak_bytes": 1000, "watts": 200.0, "watts_from": "an assumption",
    }  # fmt: skip
    return Budget(**{**given, **changed})  # type: ignore[arg-type]


def spent(**changed: object) -> Spent:
    given = {
        "label": "training", "steps": 100, "tokens": 1e6, "flops": 1e12, "seconds": 2000.0, "peak_bytes": 1000,
        "watts": 200.0, "watts_from": "an assumption",
    }  # fmt: skip
    return Spent(**{**given, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("predicted", "took", "error", "noted"),
    [(1800, 2000, -0.1, False), (1600, 2000, -0.2, True), (2400, 2000, 0.2, True), (60, 100, -0.4, False)],
)
def test_a_long_run_that_was_badly_predicted_says_so(predicted: float, took: float, error: float, noted: bool) -> None:
    compared = compare(budget(seconds=predicted), spent(seconds=took))
    assert compared.error == pytest.approx(error)
    assert ("more than 15% off" in compared.note) == noted
    assert compared.line.endswith(compared.note)


def test_energy_and_money_by_hand() -> None:
    found = budget()
    assert (found.hours, found.kwh, found.money) == (0.5, 0.1, None)
    own = found.at(Rates(watts=400, price_per_hour=3))
    assert (own.kwh, own.money, own.watts_from) == (0.2, 1.5, "as given")
    shown = "\n".join(found.lines())
    assert "0.1 kWh at 200 W (an assumption)" in shown
    assert "30 min" in shown
    assert "not known" in shown
    assert "price: 1.5 at 3 an hour" in "\n".join(own.lines())
    assert own.metrics()["budget.predicted_money"] == 1.5
    assert "budget.predicted_money" not in found.metrics()


@pytest.mark.parametrize("rates", [{"watts": -1}, {"price_per_hour": float("nan")}])
def test_rates_that_cannot_be_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(UnlabeledError, match="must be a number of at least 0"):
        Rates(**rates)


def test_several_trainings_add_up() -> None:
    whole = total([budget(), budget(seconds=600.0, steps=50, peak_bytes=3000)], "both")
    assert (whole.seconds, whole.steps, whole.flops, whole.peak_bytes) == (2400, 150, 2e12, 3000)
    assert total([budget(), budget(flops=None)], "both").flops is None
    assert budget().times(3, "three").kwh == pytest.approx(3 * budget().kwh)
    assert totals([budget(), None], [spent(), spent()]) == {
        "budget.total_spent_seconds": 4000, "budget.total_flops": 2e12,
    }  # fmt: skip


def test_the_users_own_rates_reach_the_record() -> None:
    logged: dict[str, float] = {}
    log = priced(lambda values, step: logged.update(values), Rates(watts=100, price_per_hour=2))
    log({"loss": 1.0, "budget.seconds_per_step": 0.1}, 1)
    log({"merchants budget.predicted_seconds": 1800, "budget.watts": 10.0}, 2)
    log({"budget.spent_seconds": 3600, "budget.spent_kwh": 9.0}, 3)
    assert logged.pop("loss") == 1
    assert logged == {
        "budget.seconds_per_step": 0.1,
        "merchants budget.predicted_seconds": 1800,
        "merchants budget.predicted_kwh": 0.05,
        "merchants budget.predicted_money": 1,
        "budget.watts": 100,
        "budget.spent_seconds": 3600,
        "budget.spent_kwh": 0.1,
        "budget.spent_money": 2,
    }
