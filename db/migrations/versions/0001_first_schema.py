"""The first schema: every table of the catalog."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_ENUM = sa.String(32)  # the value itself: a new member needs no migration


def upgrade() -> None:
    op.create_table(
        "agent_config",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", _ENUM, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent_config"),
        sa.UniqueConstraint("digest", name="uq_agent_config_digest"),
    )
    op.create_table(
        "artifact",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifact"),
        sa.UniqueConstraint("digest", name="uq_artifact_digest"),
    )
    op.create_table(
        "environment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("python_version", sa.String(), nullable=False),
        sa.Column("lock_digest", sa.String(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("system_packages", sa.JSON(), nullable=False),
        sa.Column("n_packages", sa.Integer(), nullable=False),
        sa.Column("resolved_as_of", _TIME, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_environment"),
        sa.UniqueConstraint("digest", name="uq_environment_digest"),
    )
    op.create_table(
        "export",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("format", _ENUM, nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_export"),
        sa.UniqueConstraint("format", "path", name="uq_export_format_path"),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("stage", _ENUM, nullable=False),
        sa.Column("subject_id", sa.Integer(), nullable=False),
        sa.Column("state", _ENUM, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=False),
        sa.Column("lease_until", _TIME, nullable=True),
        sa.Column("reason", _ENUM, nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("stage", "subject_id", name="uq_job_stage_subject_id"),
    )
    op.create_index("ix_job_claim", "job", ["state", "stage", "priority", "not_before"], unique=False)
    op.create_table(
        "repository",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("source", _ENUM, nullable=False),
        sa.Column("clone_url", sa.String(), nullable=False),
        sa.Column("web_url", sa.String(), nullable=False),
        sa.Column("default_branch", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("license", sa.String(), nullable=False),
        sa.Column("n_stars", sa.Integer(), nullable=False),
        sa.Column("is_archived", sa.Boolean(), nullable=False),
        sa.Column("is_fork", sa.Boolean(), nullable=False),
        sa.Column("pull_request_limit", sa.Integer(), nullable=True),
        sa.Column("watermark_at", _TIME, nullable=True),
        sa.Column("crawl_cursor", sa.Text(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("crawled_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_repository"),
        sa.UniqueConstraint("source", "name", name="uq_repository_source_name"),
    )
    op.create_table(
        "environment_build",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("sandbox", sa.String(), nullable=False),
        sa.Column("locator", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("built_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name="fk_environment_build_environment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_environment_build"),
        sa.UniqueConstraint("environment_id", "sandbox", name="uq_environment_build_environment_id_sandbox"),
    )
    op.create_table(
        "issue",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("opened_at", _TIME, nullable=True),
        sa.Column("comments", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repository.id"], name="fk_issue_repository_id"),
        sa.PrimaryKeyConstraint("id", name="pk_issue"),
        sa.UniqueConstraint("repository_id", "number", name="uq_issue_repository_id_number"),
    )
    op.create_index("ix_issue_repository_id", "issue", ["repository_id"], unique=False)
    op.create_table(
        "pull_request",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("base_commit", sa.String(), nullable=False),
        sa.Column("head_commit", sa.String(), nullable=False),
        sa.Column("merge_commit", sa.String(), nullable=False),
        sa.Column("first_commit_at", _TIME, nullable=True),
        sa.Column("commit_messages", sa.JSON(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("merged_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repository.id"], name="fk_pull_request_repository_id"),
        sa.PrimaryKeyConstraint("id", name="pk_pull_request"),
        sa.UniqueConstraint("repository_id", "number", name="uq_pull_request_repository_id_number"),
    )
    op.create_index("ix_pull_request_repository_id", "pull_request", ["repository_id"], unique=False)
    op.create_table(
        "pull_request_issue",
        sa.Column("pull_request_id", sa.Integer(), nullable=False),
        sa.Column("issue_id", sa.Integer(), nullable=False),
        sa.Column("signals", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["issue_id"], ["issue.id"], name="fk_pull_request_issue_issue_id"),
        sa.ForeignKeyConstraint(["pull_request_id"], ["pull_request.id"], name="fk_pull_request_issue_pull_request_id"),
        sa.PrimaryKeyConstraint("pull_request_id", "issue_id", name="pk_pull_request_issue"),
    )
    op.create_index("ix_pull_request_issue_issue_id", "pull_request_issue", ["issue_id"], unique=False)
    op.create_table(
        "task_instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("repository_id", sa.Integer(), nullable=False),
        sa.Column("pull_request_id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=True),
        sa.Column("status", _ENUM, nullable=False),
        sa.Column("reject_reason", _ENUM, nullable=True),
        sa.Column("reject_detail", sa.Text(), nullable=False),
        sa.Column("base_commit", sa.String(), nullable=False),
        sa.Column("environment_setup_commit", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("patch", sa.Text(), nullable=False),
        sa.Column("test_patch", sa.Text(), nullable=False),
        sa.Column("test_files", sa.JSON(), nullable=False),
        sa.Column("problem_statement", sa.Text(), nullable=False),
        sa.Column("hints_text", sa.Text(), nullable=False),
        sa.Column("project", sa.JSON(), nullable=False),
        sa.Column("test_command", sa.JSON(), nullable=False),
        sa.Column("fail_to_pass", sa.JSON(), nullable=False),
        sa.Column("pass_to_pass", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("validated_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name="fk_task_instance_environment_id"),
        sa.ForeignKeyConstraint(["pull_request_id"], ["pull_request.id"], name="fk_task_instance_pull_request_id"),
        sa.ForeignKeyConstraint(["repository_id"], ["repository.id"], name="fk_task_instance_repository_id"),
        sa.PrimaryKeyConstraint("id", name="pk_task_instance"),
        sa.UniqueConstraint("instance_id", name="uq_task_instance_instance_id"),
        sa.UniqueConstraint("pull_request_id", name="uq_task_instance_pull_request_id"),
    )
    op.create_index("ix_task_instance_environment_id", "task_instance", ["environment_id"], unique=False)
    op.create_index("ix_task_instance_repository_id", "task_instance", ["repository_id"], unique=False)
    op.create_index("ix_task_instance_status", "task_instance", ["status"], unique=False)
    op.create_table(
        "rollout",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_instance_id", sa.Integer(), nullable=False),
        sa.Column("agent_config_id", sa.Integer(), nullable=False),
        sa.Column("replica", sa.Integer(), nullable=False),
        sa.Column("exit_status", _ENUM, nullable=True),
        sa.Column("exit_detail", sa.Text(), nullable=False),
        sa.Column("model_patch", sa.Text(), nullable=True),
        sa.Column("resolved", sa.Boolean(), nullable=True),
        sa.Column("n_turns", sa.Integer(), nullable=False),
        sa.Column("n_prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("n_completion_tokens", sa.Integer(), nullable=False),
        sa.Column("n_cached_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Float(), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("trajectory_digest", sa.String(), nullable=True),
        sa.Column("messages_digest", sa.String(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["agent_config_id"], ["agent_config.id"], name="fk_rollout_agent_config_id"),
        sa.ForeignKeyConstraint(["task_instance_id"], ["task_instance.id"], name="fk_rollout_task_instance_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rollout"),
        sa.UniqueConstraint(
            "task_instance_id", "agent_config_id", "replica", name="uq_rollout_task_instance_id_agent_config_id_replica"
        ),
    )
    op.create_index("ix_rollout_agent_config_id", "rollout", ["agent_config_id"], unique=False)
    op.create_index("ix_rollout_task_instance_id", "rollout", ["task_instance_id"], unique=False)
    op.create_table(
        "validation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_instance_id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("verdict", _ENUM, nullable=False),
        sa.Column("reason", _ENUM, nullable=True),
        sa.Column("sandbox", sa.String(), nullable=False),
        sa.Column("n_runs", sa.Integer(), nullable=False),
        sa.Column("n_flaky", sa.Integer(), nullable=False),
        sa.Column("certificate", sa.JSON(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name="fk_validation_environment_id"),
        sa.ForeignKeyConstraint(["task_instance_id"], ["task_instance.id"], name="fk_validation_task_instance_id"),
        sa.PrimaryKeyConstraint("id", name="pk_validation"),
        sa.UniqueConstraint("task_instance_id", "number", name="uq_validation_task_instance_id_number"),
    )
    op.create_index("ix_validation_task_instance_id", "validation", ["task_instance_id"], unique=False)
    op.create_table(
        "test_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("validation_id", sa.Integer(), nullable=True),
        sa.Column("rollout_id", sa.Integer(), nullable=True),
        sa.Column("state", _ENUM, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", _ENUM, nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("order", sa.String(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("n_collected", sa.Integer(), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("log_digest", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"], name="fk_test_run_rollout_id"),
        sa.ForeignKeyConstraint(["validation_id"], ["validation.id"], name="fk_test_run_validation_id"),
        sa.PrimaryKeyConstraint("id", name="pk_test_run"),
        sa.UniqueConstraint("rollout_id", "state", "number", name="uq_test_run_rollout_id_state_number"),
        sa.UniqueConstraint("validation_id", "state", "number", name="uq_test_run_validation_id_state_number"),
    )
    op.create_index("ix_test_run_rollout_id", "test_run", ["rollout_id"], unique=False)
    op.create_index("ix_test_run_validation_id", "test_run", ["validation_id"], unique=False)
    op.create_table(
        "test_outcome",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("test_run_id", sa.Integer(), nullable=False),
        sa.Column("test_id", sa.Text(), nullable=False),
        sa.Column("test_digest", sa.String(), nullable=False),
        sa.Column("outcome", _ENUM, nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["test_run_id"], ["test_run.id"], name="fk_test_outcome_test_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_test_outcome"),
        sa.UniqueConstraint("test_run_id", "test_digest", name="uq_test_outcome_test_run_id_test_digest"),
    )
    op.create_index("ix_test_outcome_test_run_id", "test_outcome", ["test_run_id"], unique=False)
