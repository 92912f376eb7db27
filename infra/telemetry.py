"""Prometheus metrics: prefix ``rewardloop_``, base units, no user or decision ids as labels."""

from prometheus_client import Counter, Gauge, Histogram

records = Counter("rewardloop_records", "Records read, by the state they ended in", ["state"])
transitions = Counter(
    "rewardloop_transitions", "Records that left pending or quarantine, by from and to", ["left", "to"]
)
conservation_error = Gauge("rewardloop_conservation_error", "Records read minus records in exactly one state; always 0")
batch_seconds = Histogram("rewardloop_batch_seconds", "Duration of one apply of a batch")
rank_seconds = Histogram("rewardloop_rank_seconds", "Duration of one rank, from body to answer", ["learning_mode"])
ranks = Counter("rewardloop_ranks", "Answers of /v1/rank", ["group", "learning_mode", "durable"])
model_load_failures = Counter("rewardloop_model_load_failures", "Model bundles refused at load", ["reason"])
model_info = Gauge("rewardloop_model_info", "1 for the model version a loop serves", ["loop", "version"])
quarantined = Counter("rewardloop_quarantined", "Records put into quarantine", ["reason"])
