"""Every table, once. Names are the contract (DESIGN section 6); ``doc`` is what the reference page prints.

Time is integer microseconds UTC, money integer micros of a currency, JSON canonical text.
Rows without ``batch_no`` are stored but not counted yet: the next batch stamps them (invariant 4).
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from infra.database import Hash, Json

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

DOCS: dict[str, str] = {}
"""One sentence per table, for the reference page."""

AutoId = BigInteger().with_variant(Integer, "sqlite")


def _word(length: int) -> String:
    """Text compared by its bytes, as SQLite does: keys are found faster than by the customs of a language."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


Id = _word(256)


def _key(name: str, doc: str, type_: Any = Id, *more: Any, **options: Any) -> Column[Any]:
    return Column(name, type_, *more, primary_key=True, doc=doc, **options)


def _must(name: str, type_: Any, doc: str, *more: Any, **options: Any) -> Column[Any]:
    return Column(name, type_, *more, nullable=False, doc=doc, **options)


def _may(name: str, type_: Any, doc: str, *more: Any) -> Column[Any]:
    return Column(name, type_, *more, nullable=True, doc=doc)


def _table(name: str, doc: str, *parts: Any, **options: Any) -> Table:
    DOCS[name] = doc
    return Table(name, metadata, *parts, **options)


def _some(name: str, condition: str, *columns: str) -> Index:
    """An index of the rows under ``condition`` only: most rows have nothing there, and cost nothing."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


loops = _table(
    "loops",
    "Definitions of loops; every version is kept, the highest is in force.",
    _key("loop_id", "The loop."),
    _key("version", "1, 2, 3 …; raised by every change of the definition.", Integer, autoincrement=False),
    _must("definition", Json, "The whole definition as JSON, validated (`ingestion/loops.py`)."),
    _must("created_at", BigInteger, "When this version was put."),
)

loop_switches = _table(
    "loop_switches",
    "The kill switch: a loop with `killed` answers its baseline at once.",
    _key("loop_id", "The loop."),
    _must("killed", Boolean, "True: every answer is the baseline."),
    _must("reason", Text, "Why, in the words of whoever switched."),
    _must("changed_at", BigInteger, "When it was switched last."),
)

campaigns = _table(
    "campaigns",
    "A brief and its contents inside a loop.",
    _key("campaign_id", "The campaign; unique in the installation."),
    _must("loop_id", Id, "The loop it belongs to.", index=True),
    _must("brief", Text, "What the copy is for."),
    _must("channel", _word(64), "email, push, sms, ad …"),
    _must("baseline", Json, "`{version, content_ids, weights}`: frozen while the campaign runs."),
    _must("state", _word(16), "`draft`, `running` or `ended`."),
    _must("created_at", BigInteger, "When it was registered."),
)

contents = _table(
    "contents",
    "One generated piece of copy. Immutable but for its approval: an edit is a new content with a parent.",
    _key("content_id", "The content; unique in the installation."),
    _must("campaign_id", Id, "The campaign it competes in.", ForeignKey("campaigns.campaign_id"), index=True),
    _must("slots", Json, "`{slot: text}`: subject, preheader, body, cta …"),
    _must("features", Json, "`{name: number, text or boolean}` known about this content."),
    _may("locale", _word(35), "BCP 47 language tag."),
    _may("prompt_id", Id, "The prompt that made it."),
    _may("generator", Id, "The model or person that made it."),
    _must("parameters", Json, "Generation parameters, seed and cost."),
    _may("parent_id", Id, "The content this is an edit of."),
    _must(
        "approval", _word(16), "`draft`, `approved`, `rejected` or `retired`; only approved contents are candidates."
    ),
    _must("fingerprint", _word(64), "SHA-256 of slots, features and locale; unique in a campaign."),
    _must("created_at", BigInteger, "When it was registered."),
    Index("ix_contents_campaign_id_fingerprint", "campaign_id", "fingerprint", unique=True),
)

verdicts = _table(
    "verdicts",
    "What the guardrails said of each content when it came, or when the loop's rules changed: one row per rule in force.",
    _key("content_id", "The content.", Id, ForeignKey("contents.content_id")),
    _key("rule", "Which rule: `length`, `banned`, `facts`, `near_duplicate`, `best_of` …", _word(64)),
    _must("passed", Boolean, "Whether it holds."),
    _must("reason", Text, "Of a failure what was found and what to do; else empty, or what was measured."),
    _must("at", BigInteger, "When it was said."),
    _may("loop_version", Integer, "The definition whose rules they are; null in rows of before it was kept."),
)

decisions = _table(
    "decisions",
    "One stored choice. Only `batch_no` is ever updated.",
    _key("decision_id", "UUIDv7, or what the client supplied; the idempotency key."),
    _must("request_digest", _word(64), "SHA-256 of the request: same id with another digest is a conflict."),
    _must("loop_id", Id, "The loop."),
    _must("loop_version", Integer, "The definition in force."),
    _must("campaign_id", Id, "The campaign."),
    _may("unit", _word(64), "Keyed hash of the customer, `u<secret version>:<hex>`."),
    _must("context", Json, "Features known at decision time."),
    _must("group", _word(16), "`treatment`, `holdout` or `customer_managed`."),
    _must("learning_mode", _word(16), "`online`, `apprentice`, `logging_only` or `fallback`."),
    _must(
        "candidates", Json, "`[{content_id, score, expected, mean, sd, policy_p, behaviour_p}]`, sorted by content id."
    ),
    _must("excluded", Json, "`[{content_id, reason}]`."),
    _must("chosen", Json, "`[{position, content_id, propensity}]`; propensity null where it is unknown or not drawn."),
    _must("policy_version", Id, "Policy and parameters that made the probabilities."),
    _may("model_version", Id, "Reward model version; null when none was used."),
    _may("stats_version", BigInteger, "`batch_no` of the content statistics used."),
    _may("feature_schema", _word(64), "Hash of the feature schema of the model."),
    _must("sampler", _word(32), "Version of the random generator."),
    _must("floor", Float, "Least probability of an eligible candidate."),
    _must("constraints", Json, "Slots, deferral and other constraints in force."),
    _must("seed", _word(64), "Hex of the draw's seed: HMAC(loop secret, choice, decision id)."),
    _must("deferred", Boolean, "True: counts from its activation only."),
    _must("decided_at", BigInteger, "When it was decided."),
    _may("batch_no", BigInteger, "The batch that counted it; null until then."),
    Index("ix_decisions_loop_id_decided_at", "loop_id", "decided_at"),
    Index(
        "ix_decisions_unit",
        *("unit", "decided_at"),
        sqlite_where=text("unit IS NOT NULL AND batch_no IS NOT NULL"),
        postgresql_where=text("unit IS NOT NULL AND batch_no IS NOT NULL"),
        postgresql_include=["decision_id", "loop_id", "deferred"],
    ),
    _some("ix_decisions_waiting", "batch_no IS NULL", "unit", "decided_at"),
)

event_keys = _table(
    "event_keys",
    "Keys of every event ever accepted, as hashes; kept for ever, past retention and deletion.",
    _key("source", "Permanent name of the authenticated connection."),
    _key("id_hash", "First half of the SHA-256 of the event id.", Hash),
    _must("digest", Hash, "First half of the SHA-256 of the semantic fields."),
    _must("digest_version", Integer, "Version of the list of semantic fields."),
    _may("fact_key", _word(64), "SHA-256 of the order or checkout session."),
    _may("event_no", BigInteger, "The event's number; null if it was gone before events had numbers."),
)

events = _table(
    "events",
    "Facts that came in. Append-only. `event_keys` keeps (source, event_id) unique and leads from it to the number.",
    _key("event_no", "Ours, counting up: what is stored together is near together. It means nothing.", AutoId),
    _must("source", Id, "Permanent name of the authenticated connection."),
    _must("event_id", Id, "The sender's id of the event."),
    _must("type", _word(64), "click, purchase, refund, unsubscribe, activation, rating … or any name a metric uses."),
    _may("decision_id", Id, "The decision named by the event or by its token."),
    _may("link", _word(16), "How the decision was named: `decision_id` or `token`."),
    _may("unit", _word(64), "Keyed hash of the customer under the secret in use."),
    _may("unit_before", _word(64), "The same under the secret before, during a rotation."),
    _may("content_id", Id, "The content of a slate that the event is about."),
    _may("position", Integer, "The position of a slate that the event is about."),
    _may("value_micros", BigInteger, "Amount or number, in millionths."),
    _may("currency", _word(3), "ISO 4217, for money."),
    _may(
        "fact_key", _word(64), "SHA-256 of the order or checkout session: counted once although two vendors report it."
    ),
    _may("reverses", _word(64), "For a refund: the fact key of the purchase it takes back."),
    _must("occurred_at", BigInteger, "When it happened, by the sender."),
    _must("received_at", BigInteger, "When it arrived; never read by the join."),
    _must("raw", Json, "Allow-listed further fields."),
    _may("batch_no", BigInteger, "The batch that applied it."),
    _some("ix_events_decision_id", "decision_id IS NOT NULL", "decision_id"),
    _some("ix_events_activation", "type = 'activation'", "decision_id", "occurred_at"),
    _some("ix_events_unit_occurred_at", "unit IS NOT NULL", "unit", "occurred_at"),
    _some("ix_events_unit_before", "unit_before IS NOT NULL", "unit_before"),
    _some("ix_events_fact_key", "fact_key IS NOT NULL", "fact_key"),
    _some("ix_events_reverses", "reverses IS NOT NULL", "reverses"),
    _some("ix_events_watched", "type IN ('click', 'open', 'activation')", "batch_no"),
    sqlite_autoincrement=True,
)

attributions = _table(
    "attributions",
    "Which decision an event belongs to, per loop; recomputed by the join. An event without a row is pending.",
    _key("event_no", "The event.", BigInteger, autoincrement=False),
    _key("loop_id", "The loop."),
    _must("method", _word(16), "`decision_id`, `token`, `last_touch` or `reversal`."),
    _must("decision_id", Id, "The decision it belongs to.", index=True),
)

event_labels = _table(
    "event_labels",
    "Labels put on events (bot, test …). Append-only: the latest word about a label holds.",
    _key("source", "Of the event."),
    _key("event_id", "Of the event."),
    _key("label", "`bot`, `test` or another word.", _word(64)),
    _key("labelled_at", "When it was said.", BigInteger, autoincrement=False),
    _must("applies", Boolean, "False takes the label back."),
    _must("reason", Text, "Why."),
    _may("batch_no", BigInteger, "The batch that applied it."),
)

outcomes = _table(
    "outcomes",
    "Decisions joined with their events, per content and metric. Zeros are not stored.",
    _key("decision_id", "The decision."),
    _key("content_id", "The content of the slate."),
    _key("metric", "Name of the metric.", _word(64)),
    _key("metric_version", "Hash of the metric's definition.", _word(16)),
    _must("value", BigInteger, "Aggregated value in millionths: one click is 1000000."),
    _must("count", Integer, "Events behind it."),
    _must("first_at", BigInteger, "First of them."),
    _must("last_at", BigInteger, "Last of them."),
)

content_stats = _table(
    "content_stats",
    "Running sums per content, metric, model and day of decision.",
    _key("campaign_id", "The campaign."),
    _key("content_id", "The content."),
    _key("metric", "Name of the metric.", _word(64)),
    _key("model_version", "The model that served; empty for none."),
    _key("bucket", "Days since 1970 of the decision time.", Integer, autoincrement=False),
    _must("exposures", BigInteger, "Decisions that showed it."),
    _must("successes", BigInteger, "Those with a value above 0."),
    _must("sum", BigInteger, "Sum of values, millionths."),
    _must(
        "sum_squares", BigInteger, "Sum of squared values (cut to 1e-4), in units of 1e-8: of each what is below 1e12."
    ),
    _must(
        "sum_squares_high",
        BigInteger,
        "The rest of each square, in units of 1e4: one integer would overflow on prices in yen.",
        server_default=text("0"),
    ),
    _must("expected", BigInteger, "Sum of the serving model's predictions of the reward, millionths."),
    Index("ix_content_stats_bucket", "bucket"),
)

campaign_moves = _table(
    "campaign_moves",
    "How often the running sums of a campaign have moved: who keeps them reads those again that moved.",
    _key("campaign_id", "The campaign."),
    _must("moves", BigInteger, "Batches, forgettings and recounts that moved them."),
)

exchange_rates = _table(
    "exchange_rates",
    "What one unit of a currency is worth in another, from a time on. Append-only: the newest batch's word holds.",
    _key("from_currency", "What an amount is in.", _word(3)),
    _key("to_currency", "What a metric counts in.", _word(3)),
    _key("valid_from", "From when on, until the next time of these two.", BigInteger, autoincrement=False),
    _key("batch_no", "The batch that brought it.", BigInteger, autoincrement=False),
    _must("rate", BigInteger, "In trillionths (1e-12)."),
    _must("source", Id, "Where it is from, in the words of whoever imported it."),
    _must("imported_by", Id, "Who imported it."),
    _must("imported_at", BigInteger, "When it was imported."),
)

seals = _table(
    "seals",
    "Where retention stands: outcomes of decisions made before the highest horizon are final, and their events may go.",
    _key("batch_no", "The batch that sealed.", BigInteger, autoincrement=False),
    _must("horizon", BigInteger, "Decisions made before it are sealed."),
    _must(
        "events_before",
        BigInteger,
        "Events that happened before it may be gone; it leaves room for tolerances and limits.",
    ),
    _must("metrics", Json, "`{loop: {metric: version}}`: what their outcomes were measured under."),
    _must("sealed_at", BigInteger, "When."),
)

sealed_facts = _table(
    "sealed_facts",
    "Orders and refunds whose events are gone, as hashes: what comes in about them later is known, and not used.",
    _key("fact_key", "SHA-256 of the order or checkout session.", _word(64)),
)

historical_results = _table(
    "historical_results",
    "Aggregated past results per content: what an e-mail tool's report holds.",
    _key("import_id", "The import."),
    _key("row", "Row number in the file.", Integer, autoincrement=False),
    _must("loop_id", Id, "The loop.", index=True),
    _must("campaign_id", Id, "The campaign.", index=True),
    _must("content_id", Id, "The content."),
    _must("exposures", BigInteger, "Times it was shown."),
    _must("metrics", Json, "`{metric: sum in millionths}`."),
    _must("trusted", Boolean, "False: imported, but left out of evaluation."),
    _may("batch_no", BigInteger, "The batch that applied it."),
)

feedback = _table(
    "feedback",
    "What people and judges said: comments, ratings, demonstrations, preferences. Never an outcome.",
    _key("feedback_id", "Supplied by the client, or made."),
    _must("kind", _word(16), "`comment`, `rating`, `demonstration` or `preference`."),
    _must("source", _word(16), "`HUMAN`, `LLM_JUDGE` or `CODE`."),
    _may("loop_id", Id, "The loop."),
    _may("decision_id", Id, "The decision it is about."),
    _may("content_id", Id, "The content it is about."),
    _must("value", Json, "The rating, the text, or `{winner, loser}`."),
    _must("created_at", BigInteger, "When it was given."),
)

prompts = _table(
    "prompts",
    "Prompts that generators use.",
    _key("prompt_id", "The prompt."),
    _key("version", "1, 2, 3 …", Integer, autoincrement=False),
    _must("template", Text, "The text with its placeholders."),
    _must("strategy", _word(64), "What kind of prompt it is."),
    _must("parameters", Json, "Generation parameters."),
    _must("created_at", BigInteger, "When it was registered."),
)

spending = _table(
    "spending",
    "What each loop spends on language models, by calendar month.",
    _key("loop_id", "The loop."),
    _key("month", "Like `2026-11`, UTC.", _word(7)),
    _key("currency", "Of the prices.", _word(3)),
    _must("micros", BigInteger, "Spent, or taken by runs that have not ended."),
)

model_versions = _table(
    "model_versions",
    "Every reward model ever registered, with its gate report.",
    _key("loop_id", "The loop."),
    _key("version", "`<loop>-<number>`."),
    _must("digest", _word(64), "SHA-256 of the bundle, taken from the trainer's memory before it was written."),
    _must("config_digest", _word(64), "SHA-256 of the learning configuration: the same means a refresh."),
    _must("loop_version", Integer, "The definition it was judged under: its policy and weights hold while it serves."),
    _must("as_of", BigInteger, "`batch_no` of the training data."),
    _must("cutoff", BigInteger, "Decisions before it were trained on."),
    _must("state", _word(16), "`registered`, `passed`, `failed`, `refused` or `promoted`."),
    _must("kind", _word(16), "`first`, `refresh` or `change`."),
    _may("tracking_run", Id, "MLflow run."),
    _may("gate", Json, "The gate's report."),
    _must("approvals", Json, "`[{actor, at, verdict}]`."),
    _must("created_at", BigInteger, "When it was registered."),
)

champions = _table(
    "champions",
    "The version each loop serves: the truth; MLflow's alias mirrors it. Changed by compare-and-swap only.",
    _key("loop_id", "The loop."),
    _must("version", Id, "The version in force."),
    _must("revision", Integer, "Raised by every change."),
    _must("changed_at", BigInteger, "When it changed last."),
)

quarantine = _table(
    "quarantine",
    "Records that could not be used, with their bytes and the reason. Replayable.",
    Column("id", AutoId, primary_key=True, autoincrement=True, doc="Number of the record."),
    _must("source", Id, "Connection, topic or import."),
    _must("position", _word(256), "Where it was read: offset, row, item."),
    _must("reason", Text, "Why, in a sentence that says what to do."),
    _may("raw", LargeBinary, "The record's bytes, encrypted; null once expired."),
    _must("digest", _word(64), "Keyed hash of the bytes."),
    _must("state", _word(16), "`held`, `replayed` or `dropped`."),
    _must("expires_at", BigInteger, "When the bytes are deleted."),
    _must("created_at", BigInteger, "When it was put here."),
    _may("batch_no", BigInteger, "The batch that put it here."),
    Index("ix_quarantine_source_position", "source", "position"),
    sqlite_autoincrement=True,
)

batches = _table(
    "batches",
    "The ledger: every batch with the state each record of it ended in.",
    Column("batch_no", AutoId, primary_key=True, autoincrement=False, doc="1, 2, 3 …; what `as_of` means."),
    _must("at", BigInteger, "When it was applied."),
    _must("read", BigInteger, "Records read."),
    _must("applied", BigInteger, "Facts stored and joined."),
    _must("duplicate", BigInteger, "Seen before with the same body."),
    _must("ignored", BigInteger, "Known and of no use, with the reason."),
    _must("pending", BigInteger, "Events stored whose decision is not known yet."),
    _must("quarantined", BigInteger, "Kept aside with their bytes."),
    _must("reasons", Json, "`{state: {reason: count}}` for ignored and quarantined."),
    _must("left_pending", BigInteger, "Earlier events whose decision was found now."),
    _must("became_pending", BigInteger, "Earlier events that lost their decision."),
    _must("left_quarantine", BigInteger, "Quarantined records replayed or dropped in this batch."),
    _must("decisions", BigInteger, "Decisions counted as exposures in this batch."),
)

offsets = _table(
    "offsets",
    "Where the next batch of each partition begins: the database's word rules.",
    _key("topic", "The topic."),
    _key("partition", "The partition.", Integer, autoincrement=False),
    _must("position", BigInteger, "Next offset to read."),
    _must("batch_no", BigInteger, "The batch that wrote it."),
    _may("topic_id", _word(64), "The broker's id of the topic: another one means that it was made anew."),
)

embeddings = _table(
    "embeddings",
    "Vectors of texts, each made once by an embedding model.",
    _key("text_hash", "SHA-256 of the text.", _word(64)),
    _key("model", "The embedding model that made it."),
    _must("vector", LargeBinary, "Its numbers: float32, little-endian, of length one."),
    _must("made_at", BigInteger, "When it was made."),
)

imports = _table(
    "imports",
    "Imports of files: what was read, how far it is.",
    _key("import_id", "Name of the import, from its mapping."),
    _must("mapping", Json, "The mapping."),
    _must("file_digest", _word(64), "SHA-256 of the file."),
    _must("rows_done", BigInteger, "Rows applied; a later run goes on here."),
    _must("counts", Json, "`{applied, duplicate, ignored, quarantined}` so far."),
    _must("state", _word(16), "`running` or `done`."),
    _must("started_at", BigInteger, "When it began."),
    _may("finished_at", BigInteger, "When it was done."),
)

leases = _table(
    "leases",
    "One run per loop at a time, without a lock server.",
    _key("name", "What is leased: `retrain:<loop>`."),
    _must("holder", Id, "Who holds it."),
    _must("token", BigInteger, "Fencing token; raised by every new holder."),
    _must("expires_at", BigInteger, "When it may be taken by another (machine time)."),
)

api_keys = _table(
    "api_keys",
    "Keys of API clients; only a keyed hash is stored.",
    _key("key_id", "Public part of the key.", _word(32)),
    _must("name", Id, "Permanent name of the connection: the source of its events."),
    _must("hash", _word(64), "Keyed hash of the secret part."),
    _must("scopes", Json, "`[rank, events, content, admin]`."),
    _must("loops", Json, "Loops it may touch; empty: all."),
    _must("rate", _word(32), "Most requests, as in `100/second`.", server_default="2000/second"),
    _must("created_at", BigInteger, "When it was made."),
    _may("last_used_at", BigInteger, "When it was used last."),
    _may("expires_at", BigInteger, "When it ends."),
    _must("state", _word(16), "`active` or `revoked`."),
)

audit = _table(
    "audit",
    "Who changed what: approvals, promotions, switches, definitions.",
    Column("id", AutoId, primary_key=True, autoincrement=True, doc="Number of the entry."),
    _must("at", BigInteger, "When."),
    _must("actor", Id, "Who: a key's name, `cli`, `flow`."),
    _must("action", _word(64), "What: `promote`, `approve`, `kill` …"),
    _must("subject", Id, "On what."),
    _must("details", Json, "The change."),
    sqlite_autoincrement=True,
)

forgotten_units = _table(
    "forgotten_units",
    "Units that asked to be deleted, and marks of the decisions made for them; later facts about either are ignored.",
    _key("unit", "Keyed hash; of a decision `d:<hex>`.", _word(64)),
    _must("forgotten_at", BigInteger, "When."),
)

suppressions = _table(
    "suppressions",
    "Customers who must not be sent anything. A row stays when it is lifted: an older event must not bring it back.",
    _key("unit", "Keyed hash of the customer.", _word(64)),
    _key("scope", "The loop; empty: every loop."),
    _must("reason", _word(64), "`unsubscribe`, `complaint`, `spam_report` …, or the word of whoever listed it."),
    _may("suppressed_at", BigInteger, "When it was said last; null: it was only ever lifted."),
    _may("lifted_at", BigInteger, "When it was lifted last: the customer is suppressed if that was before."),
    _must("change_no", BigInteger, "Counts the changes: a reader takes what is above what it has seen.", index=True),
)
