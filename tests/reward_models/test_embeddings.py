"""Embeddings: asked for once, kept, learned from out of fold, and never needed."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine

from infra.database import reading, writing
from infra.errors import Misconfigured, Unavailable
from infra.settings import Settings
from ingestion.contents import add_contents, put_campaign
from ingestion.events import Campaign
from ingestion.loops import put_loop
from reward_models import registry
from reward_models.boosted import RewardModel, fit
from reward_models.bundle import pack, unpack
from reward_models.dataset import TrainingSet
from reward_models.embeddings import BATCH, Embedder, embed_if_asked, embed_loop, embedder_of
from reward_models.features import text_of
from reward_models.vectors import Vectors, keep, load_vectors, newest_model, unit
from reward_models.verification import check_golden
from tests.reward_models.training import SMALL, copy, definition, history, training_set


class Server(HTTPServer):
    """An OpenAI-compatible embedding server: vectors of lengths of texts, in another order than asked."""

    asked: list[list[str]]
    keys: list[str | None]
    fault: bytes | None = None


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(request["input"])
        self.server.keys.append(self.headers.get("Authorization"))
        items = [{"index": i, "embedding": [len(text), 1.0, 0.0]} for i, text in enumerate(request["input"])]
        body = self.server.fault or msgspec.json.encode({"model": request["model"], "data": items[::-1]})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of embeddings on this machine."""
    found = Server(("127.0.0.1", 0), _Handler)
    found.asked, found.keys = [], []
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


def registered(engine: Engine, *texts: str) -> None:
    """A campaign of the loop ``emails`` with these texts."""
    with writing(engine) as connection:
        put_loop(connection, definition(), 1)
        put_campaign(connection, Campaign(campaign_id="spring", loop_id="emails"))
        add_contents(connection, "spring", [copy(f"k{text}", text, "spring") for text in texts], 1_000, 1)


def test_a_text_is_asked_for_once(engine: Engine, server: Server) -> None:
    """A loop's texts are sent in batches; a second time only what is new is."""
    texts = [f"text {'x' * number}" for number in range(BATCH + 3)]
    registered(engine, *texts)
    embedder = Embedder(address(server), "small", "key")

    first = embed_loop(engine, embedder, "emails", 5)
    registered(engine, *texts, "one more")
    second, third = (embed_loop(engine, embedder, "emails", 6) for _ in range(2))

    assert (first, second, third) == (BATCH + 3, 1, 0)
    assert [len(asked) for asked in server.asked] == [BATCH, 3, 1]
    assert set(server.keys) == {"Bearer key"}


def test_vectors_belong_to_their_texts(engine: Engine, server: Server) -> None:
    """Whatever the order of the answer, each stored vector is its text's, of length one; another model has none."""
    registered(engine, "a", "four")
    embed_loop(engine, Embedder(address(server), "small"), "emails", 5)

    with reading(engine) as connection:
        found, other = load_vectors(connection, "emails", "small"), load_vectors(connection, "emails", "large")
        newest, early = newest_model(connection), load_vectors(connection, "emails", "small", until=4)

    np.testing.assert_allclose(found.of(["four"], 3)[0], np.array([4, 1, 0]) / np.sqrt(17), atol=1e-7)
    assert np.isnan(found.of(["never seen"], 3)).all()
    assert (newest, len(found.by_text), len(other.by_text), len(early.by_text)) == ("small", 2, 0, 0)


@pytest.mark.parametrize("fault", [b"{}", b"no", b'{"data":[]}', b'{"data":[{"index":0,"embedding":[1,"a"]}]}'])
def test_a_server_that_talks_nonsense_is_unavailable(server: Server, fault: bytes) -> None:
    """Nothing is guessed from an answer that does not hold a vector for each text."""
    server.fault = fault

    with pytest.raises(Unavailable, match="embedding server"):
        Embedder(address(server), "small").vectors(["a"])


def test_learning_goes_on_without_the_server(engine: Engine, settings: Settings, tmp_path: Path) -> None:
    """Not configured: nothing is asked. Away: no vectors and no fault. A key file that is not there stops."""
    registered(engine, "a")
    away = settings.model_copy(update={"embeddings_url": "http://127.0.0.1:9/v1"})

    assert embedder_of(settings) is None
    embed_if_asked(settings, engine, "emails", 5)
    embed_if_asked(away, engine, "emails", 5)
    with reading(engine) as connection:
        assert newest_model(connection) == ""
    with pytest.raises(Misconfigured, match="EMBEDDINGS_KEY_FILE"):
        embedder_of(away.model_copy(update={"embeddings_key_file": tmp_path / "none"}))


def meant(campaigns: int = 60) -> TrainingSet:
    """Texts of words that never come twice; what they mean is only in their vectors, and half of them gain 60 %."""
    rng = np.random.default_rng(4)
    contents, rates, vectors = [], [], {}
    for campaign in range(campaigns):
        for arm in range(4):
            good = arm % 2
            name = f"q{campaign}w{arm}"
            contents.append(copy(name, f"{name} {name[::-1]}", f"c{campaign}"))
            rates.append(rng.binomial(20_000, 0.02 * (1 + 0.6 * good)) / 20_000)
            vectors[text_of(contents[-1])] = unit(rng.normal(0, 0.3, (1, 8)) + np.eye(8)[good])[0]
    past = history(contents, [20_000] * len(contents), rates)
    return replace(training_set(contents, past), vectors=Vectors("small", vectors))


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """A model that learned from vectors."""
    return fit(meant(), SMALL)


def test_meaning_is_learned_from_vectors(model: RewardModel) -> None:
    """Words nobody has seen, told apart by their vectors: the good one is predicted well above the other."""
    new = Vectors("small", {"good": np.eye(8)[1], "bad": np.eye(8)[0]})
    candidates = [copy("g", "good", "new"), copy("b", "bad", "new")]

    good, bad = replace(model, vectors=new).rows([{}] * 2, candidates)
    blind_good, blind_bad = replace(model, vectors=Vectors("other", new.by_text)).rows([{}] * 2, candidates)

    assert 1.3 < good / bad < 1.9
    assert abs(blind_good / blind_bad - 1) < 0.1


def test_a_bundle_needs_no_vectors_to_be_verified(model: RewardModel) -> None:
    """Read back, its golden rows hold without the database; with the vectors it scores as before."""
    again = unpack(pack(model, cutoff=1))
    contents = meant().contents[:9]

    check_golden(again)
    with_them = replace(again, vectors=model.vectors)
    assert with_them.rows([{}] * 9, contents).tolist() == model.rows([{}] * 9, contents).tolist()


def test_a_version_keeps_the_vectors_it_was_registered_with(engine: Engine, model: RewardModel) -> None:
    """A vector that came later changes no score of an earlier version."""
    registered(engine, "early", "late")
    facts = {"digest": "d", "config_digest": "c", "loop_version": 1, "as_of": 4, "cutoff": 3, "kind": "first"}
    with writing(engine) as connection:
        keep(connection, Vectors("small", {"early": np.eye(8)[0]}), 9)
        registry.register(connection, "emails", "emails-1", **facts, now=10)  # type: ignore[arg-type]
        keep(connection, Vectors("small", {"late": np.eye(8)[1]}), 11)
        found = registry.with_vectors(connection, model, "emails", "emails-1")

    assert list(found.vectors.by_text) == ["early"]


def test_the_digest_of_a_set_knows_its_vectors() -> None:
    """Other vectors are another training set."""
    training = meant(5)
    moved = {text: -vector for text, vector in training.vectors.by_text.items()}

    assert training.digest != replace(training, vectors=Vectors("small", moved)).digest
