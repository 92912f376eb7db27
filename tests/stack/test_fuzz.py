"""A short run of the fuzzer in every test run; ``make fuzz`` runs the long one."""

from pathlib import Path

from tests.stack.fuzzing import cases, fuzz, installation


def test_the_api_does_what_its_document_says(tmp_path: Path) -> None:
    """Requests made from the OpenAPI document, valid and broken, never break the server nor get an undeclared answer."""
    with installation(tmp_path) as server:
        code, printed = fuzz(server.address, examples=8, seed=3)
    assert code == 0, printed[-6_000:]
    assert cases(printed) > 300
    assert len(server.calls) > 15
    assert sum(server.calls.values()) >= cases(printed)
