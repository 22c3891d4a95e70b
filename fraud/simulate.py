"""Made-up card payments: card holders with habits, merchants, stolen cards and compromised terminals.

Nothing here is a real person or shop. Card holders pay near home, in their own categories, at their own hours,
at prices that the category and their purse set. Two kinds of fraud are mixed in:

* a stolen card, used for about a day in categories and at hours that are not its owner's, for larger amounts;
* a compromised terminal, at which for some days cards that were never there pay at odd hours.
"""

import numpy as np
import pandas as pd

CATEGORIES = ("grocery", "fuel", "restaurant", "online", "travel", "health", "home", "electronics")
_TYPICAL = np.array([38.0, 45.0, 26.0, 42.0, 160.0, 55.0, 70.0, 190.0])  # middle price
_SPREAD = np.array([0.5, 0.3, 0.5, 0.8, 0.7, 0.6, 0.7, 0.6])  # of the logarithm of the price
_LIKED = np.array([6.0, 2.5, 3.5, 3.0, 0.3, 0.8, 1.0, 0.3])  # how often, over all card holders
_STOLEN = np.array([0.5, 0.3, 0.2, 4.0, 1.5, 0.1, 0.3, 4.0])  # where stolen cards are used
_START = np.datetime64("2026-01-05T00:00:00")  # a Monday
_DAY = 86_400


def simulate(
    *,
    customers: int = 300,
    merchants: int = 240,
    weeks: int = 12,
    stolen: int = 90,
    terminals: int = 6,
    seed: int = 0,
) -> pd.DataFrame:
    """A table of payments in time order: ``tx_id, time, customer, merchant, category, amount, fraud``.

    Args:
        customers, merchants, weeks: size; about two payments a card and day.
        stolen: how many cards are stolen, at dates spread over the whole time.
        terminals: how many merchants are compromised, ten days each.
        seed: fixes everything.
    """
    rng = np.random.default_rng([seed, 71])
    days = 7 * weeks
    town = _Town(rng, customers=customers, merchants=merchants)
    genuine = town.habits(rng, days=days)
    parts = [genuine, town.stolen_cards(rng, days=days, count=stolen)]
    parts.append(town.compromised(rng, days=days, count=terminals))
    table = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    table = table.sort_values(["second", "customer"], kind="stable", ignore_index=True)
    return pd.DataFrame(
        {
            "tx_id": np.arange(len(table)),
            "time": _START + table["second"].to_numpy().astype("timedelta64[s]"),
            "customer": "C" + table["customer"].astype(str).str.zfill(4),
            "merchant": "M" + table["merchant"].astype(str).str.zfill(4),
            "category": np.array(CATEGORIES)[table["category"].to_numpy()],
            "amount": table["amount"].round(2),
            "fraud": table["fraud"].astype(np.int8),
        }
    )


class _Town:
    """Who lives where, what they like, and which shops there are."""

    def __init__(self, rng: np.random.Generator, *, customers: int, merchants: int) -> None:
        kinds = len(CATEGORIES)
        self.customers, self.merchants = customers, merchants
        home, shop = rng.uniform(0, 10, (customers, 2)), rng.uniform(0, 10, (merchants, 2))
        self.category_m = np.concatenate([np.arange(kinds), rng.choice(kinds, merchants - kinds, p=_share(_LIKED + 1))])
        self.purse_c = np.exp(rng.normal(0, 0.35, customers))
        self.rate_c = rng.gamma(6.0, 2.0 / 6.0, customers)
        self.hour_c = rng.normal(14.5, 2.2, customers)
        liked_ck = _LIKED * rng.gamma(1.2, 1.0, (customers, kinds))
        distance_cm = np.linalg.norm(home[:, None] - shop[None], axis=2)
        near_cm = np.exp(-distance_cm / 1.2) * rng.gamma(0.6, 1.0, (customers, merchants)) + 1e-6
        near_cm[:, self.category_m == CATEGORIES.index("online")] = rng.gamma(0.4, 0.3, (customers, 1)) + 0.05
        weight_cm = near_cm * liked_ck[:, self.category_m]
        self.cumulative_cm = np.cumsum(weight_cm / weight_cm.sum(axis=1, keepdims=True), axis=1)

    def habits(self, rng: np.random.Generator, *, days: int) -> dict[str, np.ndarray]:
        """What card holders do of themselves."""
        count_cd = rng.poisson(np.repeat(self.rate_c[:, None], days, axis=1))
        customer = np.repeat(np.arange(self.customers), count_cd.sum(axis=1))
        day = np.repeat(np.tile(np.arange(days), self.customers), count_cd.reshape(-1))
        hour = np.clip(rng.normal(self.hour_c[customer], 3.0) % 24, 0, 23.999)
        # One number in [customer, customer + 1) finds the shop in all customers' cumulative shares at once.
        flat = (self.cumulative_cm + np.arange(self.customers)[:, None]).reshape(-1)
        merchant = np.searchsorted(flat, customer + rng.uniform(0, 1 - 1e-9, len(customer)))
        merchant = np.minimum(merchant - customer * self.merchants, self.merchants - 1)
        return self._payments(rng, customer, merchant, day * _DAY + hour * 3600, factor=1.0, fraud=0)

    def stolen_cards(self, rng: np.random.Generator, *, days: int, count: int) -> dict[str, np.ndarray]:
        """Bursts of four to twelve payments within about a day."""
        victim = rng.choice(self.customers, count, replace=count > self.customers)
        start = rng.uniform(2 * _DAY, (days - 1.2) * _DAY, count)
        burst = np.repeat(np.arange(count), rng.integers(4, 13, count))
        second = start[burst] + rng.uniform(0, 1.0 * _DAY, len(burst))
        second = np.where(rng.random(len(burst)) < 0.5, second, _at_night(rng, second))
        kind = rng.choice(len(CATEGORIES), len(burst), p=_share(_STOLEN))
        merchant = self._shop_of(rng, kind)
        factor = np.exp(rng.normal(0.55, 0.45, len(burst)))
        return self._payments(rng, victim[burst], merchant, second, factor=factor, fraud=1)

    def compromised(self, rng: np.random.Generator, *, days: int, count: int) -> dict[str, np.ndarray]:
        """Ten days each of two payments a day with cards that were copied elsewhere."""
        shop = rng.choice(self.merchants, count, replace=False)
        # Spread over the whole time, so that an early and a late part both hold some.
        start = (np.arange(count) + rng.uniform(0.1, 0.9, count)) * max(days - 11, 1) / count * _DAY
        which = np.repeat(np.arange(count), 20)
        second = _at_night(rng, start[which] + rng.uniform(0, 10 * _DAY, len(which)))
        customer = rng.integers(0, self.customers, len(which))
        return self._payments(rng, customer, shop[which], second, factor=1.3, fraud=1)

    def _shop_of(self, rng: np.random.Generator, kind: np.ndarray) -> np.ndarray:
        order = np.argsort(self.category_m, kind="stable")
        count = np.bincount(self.category_m, minlength=len(CATEGORIES))
        first = np.cumsum(count) - count
        return order[first[kind] + (rng.random(len(kind)) * count[kind]).astype(int)]

    def _payments(
        self,
        rng: np.random.Generator,
        customer: np.ndarray,
        merchant: np.ndarray,
        second: np.ndarray,
        *,
        factor: float | np.ndarray,
        fraud: int,
    ) -> dict[str, np.ndarray]:
        kind = self.category_m[merchant]
        price = _TYPICAL[kind] * np.exp(rng.normal(0, _SPREAD[kind])) * self.purse_c[customer] * factor
        return {
            "customer": customer,
            "merchant": merchant,
            "category": kind,
            "second": second.astype(np.int64),
            "amount": np.maximum(price, 0.5),
            "fraud": np.full(len(customer), fraud),
        }


def _at_night(rng: np.random.Generator, second: np.ndarray) -> np.ndarray:
    """The same day, between 0 and 6 o'clock."""
    return second // _DAY * _DAY + rng.uniform(0, 6 * 3600, len(second))


def _share(weight: np.ndarray) -> np.ndarray:
    return weight / weight.sum()
