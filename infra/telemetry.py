"""Prometheus metrics: prefix ``rewardloop_``, base units, no user or decision ids as labels.

Counters are of this process; the gauges about the ledger (conservation, pending, quarantine) are of the
installation, the same in every process that shows them. ``docs/how-to/watch-it-run.md`` says what to do about them.
"""

from prometheus_client import Counter, Gauge, Histogram

read_records = Counter("rewardloop_read_records", "Records that came into the ledger: the sum of rewardloop_records")
records = Counter("rewardloop_records", "Records read, by the state they ended in", ["state"])
transitions = Counter(
    "rewardloop_transitions", "Records that left pending or quarantine, by from and to", ["left", "to"]
)
conservation_error = Gauge("rewardloop_conservation_error", "Records read minus records in a state; always 0")
counted_decisions = Counter("rewardloop_counted_decisions", "Decisions that became exposures: a batch has counted them")
pending_records = Gauge("rewardloop_pending_records", "Events in the ledger that belong to no decision, now")
pending_oldest_seconds = Gauge(
    "rewardloop_pending_oldest_seconds",
    "How long the oldest click, open or activation has waited that names a decision nobody has seen; 0 for none",
)
quarantine_held_records = Gauge("rewardloop_quarantine_held_records", "Records in quarantine, now")
joined_events = Counter(
    "rewardloop_joined_events",
    "New events by how they found their decision: `none` not yet, which rewardloop_transitions tells later",
    ["method"],
)
database_up = Gauge("rewardloop_database_up", "1 while the database answers this process, else 0")
batch_seconds = Histogram("rewardloop_batch_seconds", "Duration of one apply of a batch")
rank_seconds = Histogram("rewardloop_rank_seconds", "Duration of one rank, from body to answer", ["learning_mode"])
decision_log_depth = Gauge("rewardloop_decision_log_depth", "Decisions that wait to be stored before they are answered")
refreshed_at = Gauge(
    "rewardloop_refreshed_timestamp_seconds",
    "When this process last looked for new models, copy and statistics and found the database, Unix time",
)
ranks = Counter(
    "rewardloop_ranks",
    "Answers of /v1/rank, by whether they were stored (durable)",
    ["group", "learning_mode", "durable"],
)
shed_requests = Counter(
    "rewardloop_shed_requests",
    "Requests turned away before they were worked on: `full` and `bodies` (503), `slow_body` (408), `hung_up` (no answer)",
    ["kind", "reason"],
)
requests_in_flight = Gauge("rewardloop_requests_in_flight", "Requests that are being worked on")
model_load_failures = Counter("rewardloop_model_load_failures", "Model bundles refused at load", ["reason"])
model_info = Gauge("rewardloop_model_info", "1 for the model version a loop serves", ["loop", "version"])
model_slow = Gauge(
    "rewardloop_model_slow",
    "1 where masked trees cannot represent the model that a loop serves, and LightGBM scores it, several times slower",
    ["loop"],
)
quarantined = Counter(
    "rewardloop_quarantined",
    "Records put into quarantine: `rejected` as they came, or in `conflict` with a stored fact",
    ["reason"],
)
offset_gap_records = Counter(
    "rewardloop_offset_gap_records", "Records known to be gone from a topic before a worker read them; it then stops"
)
offset_gaps = Counter("rewardloop_offset_gaps", "Times a worker stopped because a stored position is not in the log")
lag_records = Gauge("rewardloop_lag_records", "Records on the topic this worker has not read", ["topic", "partition"])
worker_partitions = Gauge("rewardloop_worker_partitions", "Partitions this worker reads")
worker_read = Counter("rewardloop_worker_records", "Records read from a topic, repeated reads included", ["topic"])
worker_batches = Counter("rewardloop_worker_batches", "Batches by what became of them", ["outcome"])
worker_delay_seconds = Histogram(
    "rewardloop_worker_delay_seconds",
    "From a record's time on its topic to the commit that applied it: the oldest record of each batch",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800, 7_200),
)
worker_waiting = Gauge("rewardloop_worker_waiting", "1 while the worker waits for a dependency to come back", ["on"])
worker_refused = Counter(
    "rewardloop_worker_refused_records", "Records put into quarantine because the database refused them"
)
worker_decode_seconds = Histogram("rewardloop_worker_decode_seconds", "Duration of decoding what one poll returned")
announcement_failures = Counter(
    "rewardloop_announcement_failures", "Quarantined records that could not be announced on the quarantine topic"
)
webhooks_refused = Counter(
    "rewardloop_webhooks_refused", "Webhook requests answered with 401, whatever the cause", ["connection"]
)
new_events = Counter(
    "rewardloop_events", "New events by type; types that only some installations have are `other`", ["type"]
)
new_labels = Counter(
    "rewardloop_event_labels",
    "New words about events: the bot share is label bot, applies true less false, over the clicks",
    ["label", "applies"],
)
redirects = Counter("rewardloop_redirects", "Redirect links asked for, by where their click went", ["click"])
spool_bytes = Gauge("rewardloop_spool_bytes", "Clicks on disk that wait for their log")

for _metric, _words in (
    (records, ("applied", "duplicate", "ignored", "pending", "quarantined")),
    (quarantined, ("rejected", "conflict")),
    (joined_events, ("decision_id", "token", "last_touch", "reversal", "none")),
    (worker_waiting, ("broker", "database")),
):
    for _word in _words:  # there from the start, so that the first increase is seen as one
        _metric.labels(_word)
