"""The pages for marketers: what they show, and that nothing in them is ever run."""

import base64
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.database import writing
from ingestion.keys import create_key
from pipelines.pages import views
from pipelines.pages.views import amount, scores_view, why
from reward_models.serving.bodies import Reason, Score
from tests.pipelines.api import away, click, define, inside, keys_of, ok, rank, running, send

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</textarea><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
)


@pytest.fixture(scope="module")
def client(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An API with a loop and two campaigns, of which one has hostile copy."""
    home = tmp_path_factory.mktemp("pages")
    (home / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    with running(f"sqlite:///{home / 'rewardloop.db'}", home) as client:
        define(client)
        contents = [{"id": f"h{place}", "slots": {"subject": text}} for place, text in enumerate(HOSTILE)]
        body = {"campaign": "hostile", "loop": "mail", "brief": HOSTILE[0], "contents": contents}
        ok(client.post("/v1/campaigns", json=body))
        yield client


TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "body",
    "header",
    "main",
    "section",
    "form",
    "label",
    "select",
    "option",
    "textarea",
    "button",
    "a",
    "h1",
    "h2",
    "p",
    "span",
    "strong",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
    "rect",
}


class Elements(HTMLParser):
    """The elements a browser makes of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


def page(client: TestClient, path: str, status: int = 200, **more: Any) -> str:
    """The page's source, checked to run nothing and to load nothing but our style."""
    answer = client.get(path, **more)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'; form-action")
    made = Elements(answer.text)
    assert made.tags <= TAGS
    assert not [name for name, _ in made.attributes if name.startswith("on")]
    addresses = [value for name, value in made.attributes if name in ("href", "src", "action")]
    assert addresses
    assert all(address and address.startswith("/") for address in addresses)
    return answer.text


def test_home_lists_loops_and_campaigns(client: TestClient) -> None:
    """Every loop with its state and its campaigns; without a model there is nothing to compare with."""
    source = page(client, "/")
    assert "no model yet" in source
    assert 'href="/campaigns/june"' in source
    assert "No loop has a model yet" in source
    assert "has no model to compare lines with" in page(client, "/?texts=A&loop=mail")


def test_a_campaign_shows_shares_and_results(client: TestClient) -> None:
    """How often each content was shown, as a number and a share, and what came of it per 1,000."""
    decided = [rank(client, decision_id=f"p{number}") for number in range(20)]
    send(client, *[click(f"c{one['decision_id']}", decision_id=one["decision_id"]) for one in decided])
    shown = [one["ranked"][0]["content_id"] for one in decided]
    source = page(client, "/campaigns/june")
    for name in set(shown):
        assert f"Line {name}" in source
        assert f"{shown.count(name) / 20:.0%}" in source
    assert "1,000" in source
    assert "click per 1,000" in source


def test_a_large_campaign_is_read_in_parts(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every content stands in exactly one part; parts lead to each other, and past the end is the last."""
    monkeypatch.setattr(views, "MOST_CONTENTS", 3)
    last = -(-len(HOSTILE) // 3)
    parts = [page(client, f"/campaigns/hostile?part={number}") for number in range(1, last + 1)]
    links = [re.findall(r"/campaigns/hostile\?part=(\d+)", source) for source in parts]

    assert sum(source.count('<td class="copy">') for source in parts) == len(HOSTILE)
    assert links[0] == ["2"]
    assert links[-1] == [str(last - 1)]
    assert f"Contents 1 to 3 of {len(HOSTILE)}" in parts[0]
    assert page(client, "/campaigns/hostile?part=999") == parts[-1]
    assert page(client, "/campaigns/hostile") == parts[0]


@pytest.mark.parametrize("text", HOSTILE)
def test_copy_is_shown_and_never_run(client: TestClient, text: str) -> None:
    """Hostile copy, briefs and questions stand in the page as their own letters."""
    escaped = (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;").replace("'", "&#39;")
    )
    assert escaped in page(client, "/campaigns/hostile")
    assert escaped in page(client, "/", params={"texts": text, "loop": text})


def test_errors_are_pages_too(client: TestClient) -> None:
    """A campaign that is not there is a page with a sentence and a way back; too many lines are refused."""
    assert "No campaign" in page(client, "/campaigns/nowhere", 404)
    assert client.get("/", params={"texts": "x" * 5_000}).status_code == 422


def test_scores_share_one_scale() -> None:
    """The best line is first, equals share a rank, and bars span the widest reach."""
    numbers = [(0.2, 0.1, 0.3), (0.5, 0.4, 0.6), (0.2, 0.1, 0.3)]
    scores = [
        Score(index=index, expected=mean, low=low, high=high, relative=0.0, rank=place)
        for index, ((mean, low, high), place) in enumerate(zip(numbers, (2, 1, 3), strict=True))
    ]
    first, *others = scores_view(["a", "b", "c"], scores)
    assert (first["text"], first["rank"], first["expected"]) == ("b", 1, "500")
    assert [(one["text"], one["rank"]) for one in others] == [("a", 2), ("c", 2)]
    assert (others[0]["from"], round(first["from"] + first["width"])) == (0.0, 100)


def test_why_tells_what_is_in_the_line() -> None:
    """The three strongest of its factors and its wording, signed, per 1,000; what all lines share is not told."""
    told = [("average copy", "campaign", 0.5), ("question", "factor", 0.002), ("the wording", "wording", -0.01)]
    told += [("no number", "factor", 0.0001), ("urgency", "factor", -0.0015), ("everything else", "rest", 0.3)]
    lines = [Reason(what=what, kind=kind, effect=effect) for what, kind, effect in told]

    assert why(lines) == "the wording −10; question +2; urgency −1.5"
    assert why([]) == ""


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0"), (0.01234, "12.3"), (1.5, "1,500"), (-0.00042, "-0.42"), (12.0, "12,000")]
)
def test_amounts(value: float, words: str) -> None:
    """Per 1,000, in three digits or whole."""
    assert amount(value) == words


def test_pages_need_a_key_where_calls_do(migrated_file: Path, tmp_path: Path) -> None:
    """With keys required a browser is asked for one, and a key for one loop shows that loop only."""
    (tmp_path / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    with running(f"sqlite:///{tmp_path / 'rewardloop.db'}", tmp_path, api_keys="required") as client:
        serving, keyring = inside(client).serving, keys_of(client)
        refused = client.get("/")
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic ")
        with writing(serving.engine) as connection:
            admin = create_key(connection, serving.secrets, "admin", ["admin", "content"], [], "100/second", 0)
        keyring.refresh()
        client.headers["X-API-Key"] = admin
        define(client)
        with writing(serving.engine) as connection:
            key = create_key(connection, serving.secrets, "ann", ["content"], ["mail"], "100/second", 0)
        keyring.refresh()
        del client.headers["X-API-Key"]
        basic = {"Authorization": "Basic " + base64.b64encode(f"ann:{key}".encode()).decode()}
        assert "june" in page(client, "/", headers=basic)
        assert "Line a" in page(client, "/campaigns/june", headers=basic)
        assert client.get("/campaigns/other", headers=basic).status_code == 403


def test_a_page_says_when_to_come_again(client: TestClient) -> None:
    """While the database is away every page is a 503 that says when to try again; what will not help says nothing."""
    serving = inside(client).serving
    with away(serving.engine):
        answers = [client.get(path) for path in ("/", "/campaigns/june")]
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 2
    assert "retry-after" not in client.get("/campaigns/nobody").headers
