"""The page that shows the API works without the internet."""

import re

from fastapi.testclient import TestClient

from infra.settings import Settings
from pipelines.app import create_app


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """Scripts and styles of /docs come from this server, and are there."""
    client = TestClient(create_app(Settings()))
    page = client.get("/docs").text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)

    assert len(loaded) >= 3
    assert [address for address in loaded if "//" in address] == []
    assert {client.get(address).status_code for address in loaded} == {200}
