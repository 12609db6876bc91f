"""The file of prices, and what a training costs by it."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import yaml

from adapters.errors import ConfigError
from trainer.trials import prices
from trainer.trials.prices import (
    SHIPPED,
    Quote,
    Range,
    Size,
    break_even,
    flops_a_token,
    load,
    memory_gb,
    own_quote,
    quotes,
)

SMALL = Size(135_000_000, 4_880_000, 30, 576)
LARGE = Size(7_000_000_000, 40_000_000, 32, 4096)


def changed(directory: Path, **fields: object) -> Path:
    """A copy of the shipped file with other fields."""
    (directory / "mine.yaml").write_text(yaml.safe_dump(yaml.safe_load(SHIPPED.read_text()) | fields))
    return directory / "mine.yaml"


def test_every_shipped_price_has_a_source_and_a_date_and_is_of_a_gpu_in_the_file():
    known = load()
    assert all(price.source and price.date <= date(2026, 11, 26) for price in known.rented)
    assert {price.gpu for price in known.rented} == known.gpus.keys()


def test_there_is_a_free_notebook_and_it_costs_nothing():
    (free,) = [quote for quote in quotes(load(), SMALL, 10**6, 10, 2) if not quote.usd_an_hour]
    assert (free.gpu, free.usd.high) == ("T4", 0)
    assert free.hours.middle > 0


def test_the_prices_are_stale_after_90_days_and_the_warning_names_the_newest():
    newest = max(price.date for price in load().rented)
    assert load().staleness(date.fromordinal(newest.toordinal() + 90)) is None
    said = load().staleness(date.fromordinal(newest.toordinal() + 91))
    assert said is not None
    assert f"the newest is from {newest}, 91 days ago (" in said
    assert "--prices FILE" in said


def test_another_file_wins(tmp_path: Path):
    row = {"provider": "Here", "gpu": "L4", "usd_an_hour": 1.5, "source": "my bill", "date": date(2026, 11, 1)}
    (quote,) = quotes(load(changed(tmp_path, rented=[row])), SMALL, 10**6, 10, 2)
    assert (quote.provider, quote.source, quote.date) == ("Here", "my bill", "2026-11-01")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "are not YAML"),
        ("[]", "the file: Input should be"),
        ("gpus: {}", "small_model: Field required"),
    ],
)
def test_a_file_that_is_none_is_an_error_that_says_where_a_good_one_is(tmp_path: Path, text: str, reason: str):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        load(tmp_path / "mine.yaml")
    assert str(SHIPPED) in caught.value.hint


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "nowhere.yaml")


def test_an_unknown_gpu_and_an_unknown_field_are_errors(tmp_path: Path):
    own = {"gpu": "Abacus", "usd": 5, "watts": 1, "usd_a_kwh": 0.3}
    with pytest.raises(ConfigError, match="gpus lacks Abacus"):
        load(changed(tmp_path, own=own))
    with pytest.raises(ConfigError, match="colour"):
        load(changed(tmp_path, colour="blue"))


def test_a_frozen_base_costs_four_operations_a_parameter_and_checkpointing_two():
    assert flops_a_token(Size(10**9, 0, 1, 1)) == 6e9
    assert flops_a_token(Size(10**9, 10**6, 1, 1)) == 6e9 + 6e6


def test_time_and_cost_on_a_gpu_are_what_the_formula_says(tmp_path: Path):
    row = {"provider": "Here", "gpu": "T4", "usd_an_hour": 2.0, "source": "x", "date": date(2026, 11, 1)}
    known = load(changed(tmp_path, rented=[row], setup_hours=[0.1, 0.3]))
    (quote,) = quotes(known, Size(10**9, 0, 1, 1), 10**7, 10, 5)
    hours = 10**7 * 6e9 / (65e12 * 0.25) / 3600
    assert quote.hours.middle == pytest.approx(hours)
    assert (quote.hours.low, quote.hours.high) == pytest.approx((0.6 * hours, 1.6 * hours))
    assert quote.usd.middle == pytest.approx(2 * (hours + 0.2))
    assert (quote.usd.low, quote.usd.high) == pytest.approx((2 * (0.6 * hours + 0.1), 2 * (1.6 * hours + 0.3)))


def test_the_fastest_gpu_waits_for_the_cpu_that_starts_its_steps():
    """As on the H200 where it was measured: 69 steps of 1,900 tokens took 48 s, of which the arithmetic alone is 13."""
    size = Size(4 * 10**9, 33 * 10**6, 36, 2560)
    hours = [quote.hours for quote in quotes(load(), size, 129_300, 69, 12) if quote.gpu == "H100 SXM"]
    assert all(each.low < 48 / 3600 < each.high for each in hours)
    long_steps = quotes(load(), size, 10**8, 69, 12)
    assert len({quote.hours for quote in long_steps}) > 1


def test_a_small_model_uses_less_of_a_gpu():
    known = load()
    small, large = (prices.tokens_a_second(known, "L4", Size(n, 0, 1, 1)) * n for n in (10**8, 10**10))
    assert small == pytest.approx(known.small_model.efficiency * large)


def test_memory_grows_with_model_batch_and_length():
    assert 2 < memory_gb(SMALL, 8, 1024) < 8
    assert 14 < memory_gb(LARGE, 1, 512) < 24
    assert memory_gb(LARGE, 8, 1024) > memory_gb(LARGE, 4, 1024) > memory_gb(LARGE, 4, 512)


def test_what_does_not_fit_is_not_the_cheapest():
    found = quotes(load(), LARGE, 10**6, 10, 20)
    assert {quote.gpu for quote in found if not quote.fits} == {"T4"}
    best = break_even(1500, found, quote(0.0)).rented
    assert best is not None
    assert (best.gpu, best.usd_an_hour) == ("RTX 4090", 0.60)
    assert break_even(1500, quotes(load(), LARGE, 10**6, 10, 500), quote(0.0)).rented is None


def test_a_card_of_ones_own_costs_its_electricity():
    quote = own_quote(load(), LARGE, 10**8, 10, 20)
    assert quote.usd.middle == pytest.approx(quote.hours.middle * 0.450 * 0.30)


def test_electricity_makes_it_more_models_and_may_make_it_never():
    def models(rented_usd: float, electricity_usd: float) -> int | None:
        quotes = [quote(rented_usd), quote(0.0), replace(quote(0.5), fits=False)]
        return break_even(1500, quotes, quote(electricity_usd)).models

    assert models(10, 0) == 150
    assert models(10, 0.81) == 164
    assert models(1, 1) is None
    assert models(1, 2) is None


def quote(usd: float) -> Quote:
    return Quote("Here", "L4", usd, Range(1, 1, 1), Range(usd, usd, usd), True, "", "")
