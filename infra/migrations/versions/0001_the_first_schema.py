"""The first schema

Revision: 0001
Before: none
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("loops", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "attributions",
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("event_id", sa.String(length=256), nullable=False),
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("decision_id", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("source", "event_id", "loop_id", name=op.f("pk_attributions")),
    )
    with op.batch_alter_table("attributions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_attributions_decision_id"), ["decision_id"], unique=False)

    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "batches",
        sa.Column(
            "batch_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("read", sa.BigInteger(), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("duplicate", sa.BigInteger(), nullable=False),
        sa.Column("ignored", sa.BigInteger(), nullable=False),
        sa.Column("pending", sa.BigInteger(), nullable=False),
        sa.Column("quarantined", sa.BigInteger(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("left_pending", sa.BigInteger(), nullable=False),
        sa.Column("became_pending", sa.BigInteger(), nullable=False),
        sa.Column("left_quarantine", sa.BigInteger(), nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch_no", name=op.f("pk_batches")),
    )
    op.create_table(
        "campaigns",
        sa.Column("campaign_id", sa.String(length=256), nullable=False),
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("brief", sa.Text(), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=False),
        sa.Column("baseline", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("pk_campaigns")),
    )
    with op.batch_alter_table("campaigns", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_campaigns_loop_id"), ["loop_id"], unique=False)

    op.create_table(
        "champions",
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("loop_id", name=op.f("pk_champions")),
    )
    op.create_table(
        "content_stats",
        sa.Column("campaign_id", sa.String(length=256), nullable=False),
        sa.Column("content_id", sa.String(length=256), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=256), nullable=False),
        sa.Column("bucket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("exposures", sa.BigInteger(), nullable=False),
        sa.Column("successes", sa.BigInteger(), nullable=False),
        sa.Column("sum", sa.BigInteger(), nullable=False),
        sa.Column("sum_squares", sa.BigInteger(), nullable=False),
        sa.Column("expected", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "campaign_id", "content_id", "metric", "model_version", "bucket", name=op.f("pk_content_stats")
        ),
    )
    op.create_table(
        "decisions",
        sa.Column("decision_id", sa.String(length=256), nullable=False),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("loop_version", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.String(length=256), nullable=False),
        sa.Column("unit", sa.String(length=64), nullable=True),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("group", sa.String(length=16), nullable=False),
        sa.Column("learning_mode", sa.String(length=16), nullable=False),
        sa.Column("candidates", sa.Text(), nullable=False),
        sa.Column("excluded", sa.Text(), nullable=False),
        sa.Column("chosen", sa.Text(), nullable=False),
        sa.Column("policy_version", sa.String(length=256), nullable=False),
        sa.Column("model_version", sa.String(length=256), nullable=True),
        sa.Column("stats_version", sa.BigInteger(), nullable=True),
        sa.Column("feature_schema", sa.String(length=64), nullable=True),
        sa.Column("sampler", sa.String(length=32), nullable=False),
        sa.Column("floor", sa.Float(), nullable=False),
        sa.Column("constraints", sa.Text(), nullable=False),
        sa.Column("seed", sa.String(length=64), nullable=False),
        sa.Column("deferred", sa.Boolean(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_decisions")),
    )
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.create_index("ix_decisions_batch_no", ["batch_no"], unique=False)
        batch_op.create_index("ix_decisions_campaign_id_decided_at", ["campaign_id", "decided_at"], unique=False)
        batch_op.create_index("ix_decisions_loop_id_unit_decided_at", ["loop_id", "unit", "decided_at"], unique=False)
        batch_op.create_index("ix_decisions_unit", ["unit"], unique=False)

    op.create_table(
        "event_keys",
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("id_hash", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("digest_version", sa.Integer(), nullable=False),
        sa.Column("fact_key", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("source", "id_hash", name=op.f("pk_event_keys")),
    )
    op.create_table(
        "event_labels",
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("event_id", sa.String(length=256), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("labelled_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("applies", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("source", "event_id", "label", "labelled_at", name=op.f("pk_event_labels")),
    )
    op.create_table(
        "events",
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("event_id", sa.String(length=256), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=256), nullable=True),
        sa.Column("link", sa.String(length=16), nullable=True),
        sa.Column("unit", sa.String(length=64), nullable=True),
        sa.Column("unit_before", sa.String(length=64), nullable=True),
        sa.Column("content_id", sa.String(length=256), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("value_micros", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("fact_key", sa.String(length=64), nullable=True),
        sa.Column("reverses", sa.String(length=64), nullable=True),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("source", "event_id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index("ix_events_batch_no", ["batch_no"], unique=False)
        batch_op.create_index("ix_events_decision_id", ["decision_id"], unique=False)
        batch_op.create_index("ix_events_fact_key", ["fact_key"], unique=False)
        batch_op.create_index("ix_events_reverses", ["reverses"], unique=False)
        batch_op.create_index("ix_events_unit_before", ["unit_before"], unique=False)
        batch_op.create_index("ix_events_unit_occurred_at", ["unit", "occurred_at"], unique=False)

    op.create_table(
        "feedback",
        sa.Column("feedback_id", sa.String(length=256), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("loop_id", sa.String(length=256), nullable=True),
        sa.Column("decision_id", sa.String(length=256), nullable=True),
        sa.Column("content_id", sa.String(length=256), nullable=True),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("feedback_id", name=op.f("pk_feedback")),
    )
    op.create_table(
        "forgotten_units",
        sa.Column("unit", sa.String(length=64), nullable=False),
        sa.Column("forgotten_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("unit", name=op.f("pk_forgotten_units")),
    )
    op.create_table(
        "historical_results",
        sa.Column("import_id", sa.String(length=256), nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("campaign_id", sa.String(length=256), nullable=False),
        sa.Column("content_id", sa.String(length=256), nullable=False),
        sa.Column("exposures", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("import_id", "row", name=op.f("pk_historical_results")),
    )
    with op.batch_alter_table("historical_results", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_historical_results_campaign_id"), ["campaign_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_historical_results_loop_id"), ["loop_id"], unique=False)

    op.create_table(
        "imports",
        sa.Column("import_id", sa.String(length=256), nullable=False),
        sa.Column("mapping", sa.Text(), nullable=False),
        sa.Column("file_digest", sa.String(length=64), nullable=False),
        sa.Column("rows_done", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_imports")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("holder", sa.String(length=256), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "loop_switches",
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("killed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("loop_id", name=op.f("pk_loop_switches")),
    )
    op.create_table(
        "loops",
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("loop_id", "version", name=op.f("pk_loops")),
    )
    op.create_table(
        "model_versions",
        sa.Column("loop_id", sa.String(length=256), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("config_digest", sa.String(length=64), nullable=False),
        sa.Column("loop_version", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("cutoff", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("tracking_run", sa.String(length=256), nullable=True),
        sa.Column("gate", sa.Text(), nullable=True),
        sa.Column("approvals", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("loop_id", "version", name=op.f("pk_model_versions")),
    )
    op.create_table(
        "offsets",
        sa.Column("topic", sa.String(length=256), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_offsets")),
    )
    op.create_table(
        "outcomes",
        sa.Column("decision_id", sa.String(length=256), nullable=False),
        sa.Column("content_id", sa.String(length=256), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("metric_version", sa.String(length=16), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "content_id", "metric", "metric_version", name=op.f("pk_outcomes")),
    )
    op.create_table(
        "prompts",
        sa.Column("prompt_id", sa.String(length=256), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "version", name=op.f("pk_prompts")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("position", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.create_index("ix_quarantine_source_position", ["source", "position"], unique=False)

    op.create_table(
        "contents",
        sa.Column("content_id", sa.String(length=256), nullable=False),
        sa.Column("campaign_id", sa.String(length=256), nullable=False),
        sa.Column("slots", sa.Text(), nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.Column("locale", sa.String(length=35), nullable=True),
        sa.Column("prompt_id", sa.String(length=256), nullable=True),
        sa.Column("generator", sa.String(length=256), nullable=True),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.String(length=256), nullable=True),
        sa.Column("approval", sa.String(length=16), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name=op.f("fk_contents_campaign_id_campaigns")
        ),
        sa.PrimaryKeyConstraint("content_id", name=op.f("pk_contents")),
    )
    with op.batch_alter_table("contents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_contents_campaign_id"), ["campaign_id"], unique=False)
        batch_op.create_index("ix_contents_campaign_id_fingerprint", ["campaign_id", "fingerprint"], unique=True)


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("contents", schema=None) as batch_op:
        batch_op.drop_index("ix_contents_campaign_id_fingerprint")
        batch_op.drop_index(batch_op.f("ix_contents_campaign_id"))

    op.drop_table("contents")
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.drop_index("ix_quarantine_source_position")

    op.drop_table("quarantine")
    op.drop_table("prompts")
    op.drop_table("outcomes")
    op.drop_table("offsets")
    op.drop_table("model_versions")
    op.drop_table("loops")
    op.drop_table("loop_switches")
    op.drop_table("leases")
    op.drop_table("imports")
    with op.batch_alter_table("historical_results", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_historical_results_loop_id"))
        batch_op.drop_index(batch_op.f("ix_historical_results_campaign_id"))

    op.drop_table("historical_results")
    op.drop_table("forgotten_units")
    op.drop_table("feedback")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index("ix_events_unit_occurred_at")
        batch_op.drop_index("ix_events_unit_before")
        batch_op.drop_index("ix_events_reverses")
        batch_op.drop_index("ix_events_fact_key")
        batch_op.drop_index("ix_events_decision_id")
        batch_op.drop_index("ix_events_batch_no")

    op.drop_table("events")
    op.drop_table("event_labels")
    op.drop_table("event_keys")
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.drop_index("ix_decisions_unit")
        batch_op.drop_index("ix_decisions_loop_id_unit_decided_at")
        batch_op.drop_index("ix_decisions_campaign_id_decided_at")
        batch_op.drop_index("ix_decisions_batch_no")

    op.drop_table("decisions")
    op.drop_table("content_stats")
    op.drop_table("champions")
    with op.batch_alter_table("campaigns", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_campaigns_loop_id"))

    op.drop_table("campaigns")
    op.drop_table("batches")
    op.drop_table("audit")
    with op.batch_alter_table("attributions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_attributions_decision_id"))

    op.drop_table("attributions")
    op.drop_table("api_keys")
