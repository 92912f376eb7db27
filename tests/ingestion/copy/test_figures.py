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
    ],
)
def test_equal_claims_have_one_form(text: str, found: set[str]) -> None:
    """However it is written, the same claim is the same figure; addresses, placeholders and words claim nothing."""
    assert {str(figure) for figure in figures(text)} == found
