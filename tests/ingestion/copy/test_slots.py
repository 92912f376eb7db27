"""The order of slots wherever people read copy."""

from ingestion.copy.slots import as_read, in_reading_order


def test_slots_stand_as_a_reader_meets_them() -> None:
    """Subject first, call to action last of the usual ones; names of one's own follow, by name."""
    names = {"cta", "zebra", "body", "alt", "subject", "preheader"}

    assert in_reading_order(names) == ["subject", "preheader", "body", "cta", "alt", "zebra"]
    assert as_read({"body": 1, "subject": "Hello"}) == [("subject", "Hello"), ("body", "1")]
