"""Figures: what a text claims in numbers, in one form."""

import pytest

from ingestion.copy.figures import figures


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Save 20 % until 24 December, from €49.90", {"percentage 20", "date 24-12", "price 49.9 EUR"}),
        ("twenty percent on three picks", {"percentage 20", "number 3"}),
        ("twenty-five reasons, a dozen gifts", {"number 25", "number 12"}),
        ("half price, 5.5% back", {"percentage 50", "percentage 5.5"}),
        ("49,90 € or USD 1,299 or 20 pounds", {"price 49.9 EUR", "price 1299 USD", "price 20 GBP"}),
        ("1.000,50 and 1,000.5 and 10 000", {"number 1000.5", "number 10000"}),
        ("24.12.2026 or 2026-12-24 or Dec 24th, 2026", {"date 24-12", "date year 2026"}),
        ("Ends Friday, in December", {"date friday", "date month 12"}),
        ("at 9:30 pm or 21:30", {"time 21:30"}),
        ("٢٠ % and ２０ %", {"percentage 20"}),
        ("50k fans, 3x faster", {"number 50k", "number 3"}),
        ("MP3 for B2B, you may march in", {"date month 3"}),
        ("{{first_name}}, see https://shop.com/20?x=30 and www.shop.com/7", set()),
        ("One for all, no numbers here", set()),
        ("einundzwanzig Euro, hundertzwanzig Tage", {"price 21 EUR", "number 120"}),
        ("dreihundertfünfundvierzigtausend und zwei Millionen", {"number 345000", "number 2000000"}),
        ("two hundred and fifty euros, one thousand two hundred", {"price 250 EUR", "number 1200"}),
        ("a third off, ein Viertel günstiger", {"percentage 33.33", "percentage 25"}),
        ("half the price, zum halben Preis, die Hälfte sparen", {"percentage 50"}),
        ("save two thirds, three quarters of the price", {"percentage 66.67", "percentage 75"}),
        ("www.50%off, https://30%off, 20.de", {"percentage 50", "percentage 30", "number 20"}),
        ("Ⅳ days, ❺ nights", {"number 4", "number 5"}),
        ("einmal, zweifellos, Achtung, dreist, tausendfach, Hundertschaft, eins", set()),
        ("one of a kind, secondhand, someone, tension, often, a third person, the second half, half an hour", set()),
        ("save half an hour, a quarter past, im ersten Viertel, Elfenbein", set()),
    ],
)
def test_equal_claims_have_one_form(text: str, found: set[str]) -> None:
    """However it is written, the same claim is the same figure; addresses, placeholders and words claim nothing."""
    assert {str(figure) for figure in figures(text)} == found
