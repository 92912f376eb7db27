"""What people prefer comes in by API, file and page, and is weighed against what customers did."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from infra import tables
from ingestion.loops import load_loop
from pipelines import cli
from pipelines.prompting import log_of_loop
from tests.pipelines.api import click, define, inside, ok, rank, refused, running, send
from tests.pipelines.test_pages import HOSTILE, Elements

POLICY_START = "default-src 'none'; style-src 'self'; form-action 'self'"
HOSTILE_IDS = [f"hostile{place}" for place in range(5)]
LINES = ("Save 20% today", "Get 20% today", "Get 20% now")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one installation, for the API and for commands."""
    return tmp_path_factory.mktemp("preferring")


@pytest.fixture(scope="module")
def client(migrated_file: Path, home: Path) -> Iterator[TestClient]:
    """An API with two campaigns: three lines that were shown, and hostile ones."""
    (home / "rewardloop.db").write_bytes(migrated_file.read_bytes())
    with running(f"sqlite:///{home / 'rewardloop.db'}", home) as client:
        define(client)
        for campaign, lines in (("sale", LINES), ("hostile", HOSTILE)):
            contents = [{"id": f"{campaign}{n}", "slots": {"subject": text}} for n, text in enumerate(lines)]
            ok(client.post("/v1/campaigns", json={"campaign": campaign, "loop": "mail", "contents": contents}))
        for number in range(60):
            decided = rank(client, campaign="sale", decision_id=f"p{number}")["ranked"][0]["content_id"]
            if decided == "sale0" or number % 3 == 0:
                send(client, click(f"c{number}", decision_id=f"p{number}"))
        yield client


@pytest.fixture
def installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands work on the same installation."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(home))
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")


def elements(source: str) -> list[tuple[str, str | None]]:
    """Attributes of what a browser makes of a page."""
    return Elements(source).attributes


def said(client: TestClient) -> list[tuple[str, dict[str, object]]]:
    """Kind and value of all feedback."""
    with inside(client).serving.engine.connect() as connection:
        return [(row.kind, row.value) for row in connection.execute(select(tables.feedback))]


def test_a_ranking_is_feedback(client: TestClient) -> None:
    """A ranking of contents is kept with whose it is; one that is no ranking says what to send."""
    body = {"kind": "ranking", "loop": "mail", "annotator": "ann", "value": {"ranking": ["sale0", "sale2", "sale1"]}}
    ok(client.post("/v1/feedback", json=body))

    assert ("ranking", body["value"] | {"annotator": "ann"}) in said(client)  # type: ignore[operator]
    for order in (["sale0"], ["sale0", "sale0"], "sale0", [1, 2]):
        assert "the best first" in refused(client.post("/v1/feedback", json=body | {"value": {"ranking": order}}), 422)
    assert "No content" in refused(client.post("/v1/feedback", json=body | {"value": {"ranking": ["sale0", "x"]}}), 404)
    same = {"kind": "preference", "value": {"winner": "a", "loser": "a"}}
    assert "between two" in refused(client.post("/v1/feedback", json=same), 422)
    assert client.post("/v1/feedback", json=body | {"annotator": "ann@example.com"}).status_code == 422


def test_a_file_is_imported_once(
    client: TestClient, installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same file again changes nothing, and of one that has grown what is new is new, equal rows too; a bad row is named,
    with its number."""
    files = {
        "pairs.csv": "winner,loser,annotator\nsale0,sale1,bob\nsale0,sale2,bob\n",
        "ranks.csv": "ranking,annotator\nsale0 > sale2 > sale1,cem\n",
        "stars.csv": "content,rating,annotator\nsale0,5,dia\nsale1,2,dia\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        counts = []
        for _ in range(2):
            assert cli.run(["preferences", "import", str(tmp_path / name), "--loop", "mail", "--json"]) == 0
            counts.append(json.loads(capsys.readouterr().out))
        assert (counts[0]["new"], counts[1]["new"]) == (counts[0]["rows"], 0)
    grown = "winner,loser,annotator\nsale2,sale1,bob\nsale0,sale1,bob\nsale0,sale2,bob\nsale0,sale1,bob\n"
    (tmp_path / "grown.csv").write_text(grown)
    assert cli.run(["preferences", "import", str(tmp_path / "grown.csv"), "--loop", "mail", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 4, "new": 2, "already there": 2}
    (tmp_path / "bad.csv").write_text("winner,loser\nsale0,gone\n")
    assert cli.run(["preferences", "import", str(tmp_path / "bad.csv"), "--loop", "mail"]) == 1
    assert "row 1: No content 'gone'" in " ".join(capsys.readouterr().err.split())


def test_the_report_shows_people_beside_money(
    client: TestClient, installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Agreement, reliability and, for each content, both words with the weights, which add up to 1."""
    assert cli.run(["preferences", "report", "mail", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["agreement"]["pairs"]["alpha"] == 1.0
    assert {one["annotator"] for one in found["annotators"]} >= {"ann", "bob", "cem", "dia"}
    shown = {one["content"]: one for one in found["contents"]}
    assert shown["sale0"]["said"] > shown["sale1"]["said"]
    assert all(abs(one["people"] + one["outcomes"] - 1) < 1e-9 for one in shown.values())
    assert found["opinions"]["people"]["state"] == "unproven"
    assert {one["starts"] for one in shown.values()} == {0.0}
    assert cli.run(["preferences", "report", "mail"]) == 0
    printed = capsys.readouterr().out
    assert "People beside money" in printed
    assert "people: " in printed


def test_the_page_says_what_opinions_count_for(client: TestClient) -> None:
    """What the server heard stands below the question: one campaign alone proves nothing, so it moves nothing."""
    address = "/campaigns/sale/preferences"
    client.app.state.serving.snapshots.listen()  # type: ignore[attr-defined]

    assert "it moves nothing" in client.get(address).text


def test_the_page_asks_until_all_is_said(client: TestClient) -> None:
    """A person names themselves, then chooses between pairs until none is left; each click is one preference."""
    assert "Your name here" in client.get("/campaigns/sale/preferences").text
    before = len(said(client))
    for place in range(3):
        source = client.get("/campaigns/sale/preferences", params={"annotator": "eve"}).text
        assert f"eve has made {place} choices" in source
        address = next(value for name, value in elements(source) if name == "action")
        answer = client.post(str(address), headers={"sec-fetch-site": "same-origin"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/campaigns/sale/preferences?annotator=eve")

    assert "judged every pair" in client.get("/campaigns/sale/preferences", params={"annotator": "eve"}).text
    assert len(said(client)) == before + 3


def test_a_click_from_elsewhere_is_refused(client: TestClient) -> None:
    """Another site cannot choose for somebody, nor can contents of another campaign be chosen."""
    choice = {"annotator": "eve", "winner": "sale0", "loser": "sale1"}
    before = len(said(client))

    assert (
        client.post("/campaigns/sale/preferences", params=choice, headers={"sec-fetch-site": "cross-site"}).status_code
        == 403
    )
    assert client.post("/campaigns/sale/preferences", params=choice | {"loser": "a"}).status_code == 422
    assert len(said(client)) == before


def test_the_page_ranks_a_few(client: TestClient) -> None:
    """The best is picked, then the best of the rest; looking changes nothing, the last click is one ranking, once however often it is clicked."""
    before, address = len(said(client)), "/campaigns/sale/rankings?annotator=fay"
    picked = []
    for place in range(2):
        source = client.get(address).text
        links = [
            str(value) for name, value in elements(source) if name in ("href", "action") and "picked" in str(value)
        ]
        assert len(links) == 3 - place
        address = links[0]
        picked = parse_qs(urlsplit(address).query)["picked"]
    assert len(said(client)) == before
    for _ in range(2):
        answer = client.post(address, headers={"sec-fetch-site": "same-origin"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/campaigns/sale/rankings?annotator=fay")

    assert said(client)[before:] == [("ranking", {"ranking": picked, "annotator": "fay"})]
    assert sorted(picked) == ["sale0", "sale1", "sale2"]
    assert "judged every pair" in client.get("/campaigns/sale/rankings?annotator=fay").text
    assert "judged every pair" in client.get("/campaigns/sale/preferences?annotator=fay").text


def test_the_page_rates_one_by_one(client: TestClient) -> None:
    """Each content is shown until the person has rated all; each click is one rating, once however often it is clicked."""
    before, rated = len(said(client)), dict[str, object]()
    for place in range(3):
        source = client.get("/campaigns/sale/ratings", params={"annotator": "gil"}).text
        assert f"gil has rated {place} so far" in source
        addresses = [str(value) for name, value in elements(source) if name == "formaction"]
        assert len(addresses) == 5
        for _ in range(2):
            client.post(addresses[place], headers={"sec-fetch-site": "same-origin"})
        rated[parse_qs(urlsplit(addresses[place]).query)["content"][0]] = place + 1

    assert "rated all there is" in client.get("/campaigns/sale/ratings", params={"annotator": "gil"}).text
    assert said(client)[before:] == [("rating", {"rating": value, "annotator": "gil"}) for value in rated.values()]
    assert set(rated) == {"sale0", "sale1", "sale2"}


def test_orders_and_ratings_from_elsewhere_are_refused(client: TestClient) -> None:
    """Neither another site, nor contents of another campaign, nor marks and orders that are none: nothing is kept."""
    before, foreign = len(said(client)), {"sec-fetch-site": "cross-site"}
    ranking: dict[str, Any] = {"annotator": "eve", "picked": ["sale0", "sale1"]}
    rating: dict[str, Any] = {"annotator": "eve", "content": "sale0", "rating": 4}
    orders: list[dict[str, Any]] = [{"picked": ["sale0", "a"]}, {"picked": ["sale0"]}, {"picked": ["sale0"] * 2}]
    marks: list[dict[str, Any]] = [{"content": "a"}, {"rating": 0}, {"rating": 6}, {"rating": "good"}]
    for way, asked, wrong in (("rankings", ranking, orders), ("ratings", rating, marks)):
        assert client.post(f"/campaigns/sale/{way}", params=asked, headers=foreign).status_code == 403
        assert [client.post(f"/campaigns/sale/{way}", params={**asked, **one}).status_code for one in wrong] == [
            422
        ] * len(wrong)
    for among, picked in ((["sale0", "a"], []), (["sale0", "sale1"], ["sale0"]), (["sale0", "sale1"], ["sale2"])):
        asked = {"annotator": "eve", "among": among, "picked": picked}
        assert client.get("/campaigns/sale/rankings", params=asked).status_code == 422

    assert len(said(client)) == before


def test_hostile_copy_is_shown_and_never_run(client: TestClient) -> None:
    """Pages of pairs and of differences hold copy as its own letters, and run nothing."""
    for path, params in (
        ("/campaigns/hostile/preferences", {"annotator": "eve"}),
        ("/campaigns/hostile/rankings", {"annotator": "eve", "among": HOSTILE_IDS, "picked": HOSTILE_IDS[:2]}),
        ("/campaigns/hostile/ratings", {"annotator": "eve"}),
        ("/campaigns/hostile/diff", {"first": "hostile0", "second": "hostile1"}),
    ):
        answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Security-Policy"].startswith(POLICY_START)
        assert "<script" not in answer.text
        assert "<img" not in answer.text
        assert not [name for name, _ in elements(answer.text) if name.startswith("on")]


def test_the_difference_names_each_change(
    client: TestClient, installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word by word, with what a change was worth where two contents differ in it alone; else that it was not tested."""
    source = client.get("/campaigns/sale/diff", params={"first": "sale0", "second": "sale1"}).text
    assert "<del>Save</del><ins>Get</ins>" in source
    assert cli.run(["diff", "sale0", "sale2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert [(one["change"]["removed"], one["change"]["added"]) for one in found["slots"][0]["changes"]] == [
        ("Save", "Get"),
        ("today", "now"),
    ]
    assert found["slots"][0]["changes"][0]["effect"]["value"] < 0
    assert cli.run(["diff", "sale1", "hostile0"]) == 0
    assert "not tested alone" in capsys.readouterr().out
    assert cli.run(["diff", "sale1", "nothing"]) == 1


def test_prompts_are_evaluated_and_recommended(
    tmp_path: Path, installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log in a file is enough: the gain on unseen queries, and a prompt for a new one."""
    rows = [
        f"{season} coat number {'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10]},{prompt},{int((prompt == 'story') == (season == 'winter'))}"
        for n in range(60)
        for season in ("winter", "summer")
        for prompt in ("story", "plain")
    ]
    path = tmp_path / "log.csv"
    path.write_text("brief,prompt,clicks\n" + "\n".join(rows) + "\n")
    names = ["--query", "brief", "--reward", "clicks", "--json"]
    assert cli.run(["prompts", "evaluate", str(path), *names]) == 0
    assert json.loads(capsys.readouterr().out)["gain"]["where it is clear"]["measured"]["low"] > 0.3
    asked = ["--for", "winter coat for you", "--for", "summer coat for you"]
    assert cli.run(["prompts", "recommend", str(path), *asked, *names]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["proven"]
    assert [one["prompt"] for one in found["recommendations"]] == ["story", "plain"]
    assert cli.run(["prompts", "recommend", str(path)]) == 1


def test_a_loops_own_copy_is_a_log(client: TestClient, installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Briefs, prompts and what copy earned relative to its campaign; without any, and with two sources, it says so."""
    contents = [
        {
            "id": f"spring{n}",
            "slots": {"subject": f"Spring {n}"},
            "prompt_id": prompt,
            "parameters": {"prompt_version": 2},
        }
        for n, prompt in enumerate(("ask", "plain"))
    ]
    body = {"campaign": "spring", "loop": "mail", "brief": "Spring coats", "contents": contents}
    ok(client.post("/v1/campaigns", json=body))
    for number in range(30):
        chosen = rank(client, campaign="spring", decision_id=f"s{number}")["ranked"][0]["content_id"]
        if chosen == "spring0":
            send(client, click(f"cs{number}", decision_id=f"s{number}"))
    with inside(client).serving.engine.connect() as connection:
        log = log_of_loop(connection, load_loop(connection, "mail")[0])

    assert (log.queries, log.prompts) == (("Spring coats",), ("ask@2", "plain@2"))
    assert log.reward[log.prompt == 0][0] > 1 > log.reward[log.prompt == 1][0]
    assert cli.run(["prompts", "evaluate", "--loop", "mail"]) == 1
    assert "1 groups of queries" in " ".join(capsys.readouterr().err.split())
    assert cli.run(["prompts", "evaluate"]) == 1
