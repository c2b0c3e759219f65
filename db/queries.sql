-- Questions worth asking the catalog twice. Each runs unchanged on SQLite and PostgreSQL and writes nothing.
--
--   -- name: NAME, then comment lines that say what it answers, then one SELECT.
--
-- Every parameter is optional: one that is not given is NULL, and NULL means "all".

-- name: funnel
-- How far the subjects of each repository have come, and of all in total.
WITH step AS (
    SELECT
        repository.id,
        repository.name AS repository,
        (SELECT count(*) FROM pull_request WHERE pull_request.repository_id = repository.id) AS pull_requests,
        (SELECT count(*) FROM task_instance WHERE task_instance.repository_id = repository.id) AS candidates,
        (
            SELECT count(*) FROM task_instance
            WHERE task_instance.repository_id = repository.id AND task_instance.environment_id IS NOT NULL
        ) AS environments,
        (
            SELECT count(*) FROM task_instance
            WHERE task_instance.repository_id = repository.id AND task_instance.status = 'validated'
        ) AS validated,
        (
            SELECT count(*) FROM rollout
            JOIN task_instance ON task_instance.id = rollout.task_instance_id
            WHERE task_instance.repository_id = repository.id AND rollout.finished_at IS NOT NULL
        ) AS rollouts,
        (
            SELECT count(*) FROM rollout
            JOIN task_instance ON task_instance.id = rollout.task_instance_id
            WHERE task_instance.repository_id = repository.id AND rollout.resolved
                AND json_array_length(rollout.suspicious) = 0
        ) AS resolved
    FROM repository
    WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
),
line AS (
    SELECT 0 AS place, id, repository, pull_requests, candidates, environments, validated, rollouts, resolved FROM step
    UNION ALL
    SELECT
        1, 0, 'total', CAST(sum(pull_requests) AS INTEGER), CAST(sum(candidates) AS INTEGER),
        CAST(sum(environments) AS INTEGER), CAST(sum(validated) AS INTEGER), CAST(sum(rollouts) AS INTEGER),
        CAST(sum(resolved) AS INTEGER)
    FROM step
    HAVING count(*) > 0
)
SELECT repository, pull_requests, candidates, environments, validated, rollouts, resolved
FROM line
ORDER BY place, repository, id;

-- name: rejections
-- Why subjects were dropped, at which stage, most frequent first.
WITH dropped AS (
    SELECT job.stage, job.reason, job.repository_id, count(*) AS n
    FROM job WHERE job.state = 'rejected' GROUP BY job.stage, job.reason, job.repository_id
)
SELECT dropped.stage, dropped.reason, dropped.n, repository.name AS repository
FROM dropped
JOIN repository ON repository.id = dropped.repository_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
ORDER BY dropped.n DESC, dropped.stage, dropped.reason, repository.name;

-- name: rejected
-- Each dropped subject with its reason in full.
WITH subject AS (
    SELECT 'crawl' AS stage, crawl.id AS subject_id, repository.name AS repository, NULL AS pull_request
    FROM crawl JOIN repository ON repository.id = crawl.repository_id
    UNION ALL
    SELECT 'candidate', pull_request.id, repository.name, pull_request.number
    FROM pull_request JOIN repository ON repository.id = pull_request.repository_id
    UNION ALL
    SELECT 'environment', task_instance.id, repository.name, pull_request.number
    FROM task_instance
    JOIN pull_request ON pull_request.id = task_instance.pull_request_id
    JOIN repository ON repository.id = task_instance.repository_id
    UNION ALL
    SELECT step.stage, task_instance.id, repository.name, pull_request.number
    FROM (SELECT 'validation' AS stage UNION ALL SELECT 'score') AS step
    CROSS JOIN task_instance
    JOIN pull_request ON pull_request.id = task_instance.pull_request_id
    JOIN repository ON repository.id = task_instance.repository_id
    UNION ALL
    SELECT step.stage, rollout.id, repository.name, pull_request.number
    FROM (SELECT 'rollout' AS stage UNION ALL SELECT 'grade') AS step
    CROSS JOIN rollout
    JOIN task_instance ON task_instance.id = rollout.task_instance_id
    JOIN pull_request ON pull_request.id = task_instance.pull_request_id
    JOIN repository ON repository.id = task_instance.repository_id
)
SELECT subject.repository, subject.pull_request, job.stage, job.reason, job.message
FROM job
JOIN subject ON subject.stage = job.stage AND subject.subject_id = job.subject_id
WHERE job.state = 'rejected' AND (CAST(:repository AS TEXT) IS NULL OR subject.repository = :repository)
ORDER BY subject.repository, subject.pull_request, job.stage;

-- name: instances
-- Each task instance: its status, what it runs on, and how many tests judge it.
SELECT
    task_instance.instance_id,
    task_instance.status,
    task_instance.reject_reason AS reason,
    environment.python_version AS python,
    json_array_length(task_instance.fail_to_pass) AS n_fail_to_pass,
    json_array_length(task_instance.pass_to_pass) AS n_pass_to_pass,
    substr(CAST(task_instance.validated_at AS TEXT), 1, 19) AS validated_at
FROM task_instance
JOIN repository ON repository.id = task_instance.repository_id
JOIN pull_request ON pull_request.id = task_instance.pull_request_id
LEFT JOIN environment ON environment.id = task_instance.environment_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
ORDER BY repository.name, pull_request.number;

-- name: exportable
-- What `export --where` chooses from: each validated task instance with the columns a condition may name.
SELECT
    task_instance.instance_id,
    repository.name AS repo,
    pull_request.number AS pull_number,
    CASE WHEN task_instance.license <> '' THEN task_instance.license ELSE repository.license END AS license,
    repository.n_stars,
    environment.python_version AS python,
    substr(CAST(task_instance.created_at AS TEXT), 1, 19) AS created_at,
    substr(CAST(task_instance.validated_at AS TEXT), 1, 19) AS validated_at,
    json_array_length(task_instance.fail_to_pass) AS n_fail_to_pass,
    json_array_length(task_instance.pass_to_pass) AS n_pass_to_pass,
    length(task_instance.patch) AS patch_characters,
    length(task_instance.problem_statement) AS statement_characters,
    task_instance.tier,
    (
        SELECT count(*) FROM rollout
        JOIN agent_config ON agent_config.id = rollout.agent_config_id
        WHERE rollout.task_instance_id = task_instance.id AND rollout.resolved IS NOT NULL
            AND agent_config.kind NOT IN ('oracle', 'nop')
    ) AS n_rollouts,
    (
        SELECT count(*) FROM rollout
        JOIN agent_config ON agent_config.id = rollout.agent_config_id
        WHERE rollout.task_instance_id = task_instance.id AND rollout.resolved
            AND json_array_length(rollout.suspicious) = 0 AND agent_config.kind NOT IN ('oracle', 'nop')
    ) AS n_resolved
FROM task_instance
JOIN repository ON repository.id = task_instance.repository_id
JOIN pull_request ON pull_request.id = task_instance.pull_request_id
JOIN environment ON environment.id = task_instance.environment_id
WHERE task_instance.status = 'validated'
    AND (CAST(:repository AS TEXT) IS NULL OR repository.name = :repository)
ORDER BY repository.name, pull_request.number;

-- name: crawls
-- What each crawl asked of GitHub, in all and for each pull request it looked at; the aim is 2 points and 0.2 calls.
SELECT
    repository.name AS repository,
    crawl.source,
    crawl.n_examined AS pull_requests,
    crawl.n_graphql_points AS points,
    crawl.n_rest AS calls,
    crawl.n_rest_free AS free_calls,
    CASE WHEN crawl.n_examined > 0 THEN CAST(crawl.n_graphql_points AS DOUBLE PRECISION) / crawl.n_examined END AS points_each,
    CASE WHEN crawl.n_examined > 0 THEN CAST(crawl.n_rest AS DOUBLE PRECISION) / crawl.n_examined END AS calls_each,
    substr(CAST(crawl.watermark_at AS TEXT), 1, 19) AS watermark_at
FROM crawl
JOIN repository ON repository.id = crawl.repository_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
ORDER BY repository.name, crawl.source;

-- name: links
-- How many links between pull requests and issues each set of signals gives, and how sure they are.
SELECT
    repository.name AS repository,
    CAST(pull_request_issue.signals AS TEXT) AS signals,
    count(*) AS n,
    min(pull_request_issue.confidence) AS confidence
FROM pull_request_issue
JOIN pull_request ON pull_request.id = pull_request_issue.pull_request_id
JOIN repository ON repository.id = pull_request.repository_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
GROUP BY repository.name, CAST(pull_request_issue.signals AS TEXT)
ORDER BY repository.name, n DESC, signals;

-- name: quotas
-- What each credential (by its digest) may still ask of GitHub, as GitHub said last.
SELECT
    credential,
    resource,
    n_asked,
    n_left,
    n_limit,
    substr(CAST(resets_at AS TEXT), 1, 19) AS resets_at,
    substr(CAST(not_before AS TEXT), 1, 19) AS not_before
FROM api_quota
ORDER BY credential, resource;

-- name: rungs
-- What each rung and repair was worth: task instances where it was tried, where it served, and how many of those stand.
WITH RECURSIVE number (n) AS (
    SELECT 0
    UNION ALL
    SELECT n + 1 FROM number WHERE n < 99
),
attempt AS (
    SELECT
        task_instance.id,
        task_instance.status,
        task_instance.environment_id,
        task_instance.recipe -> 'attempts' -> number.n ->> 'kind' AS kind,
        task_instance.recipe -> 'attempts' -> number.n ->> 'name' AS name,
        CAST(task_instance.recipe -> 'attempts' -> number.n ->> 'worked' AS TEXT) AS worked,
        CAST(task_instance.recipe -> 'attempts' -> number.n ->> 'n_requirements' AS INTEGER) AS n_requirements
    FROM task_instance
    JOIN repository ON repository.id = task_instance.repository_id
    JOIN number ON number.n < json_array_length(task_instance.recipe -> 'attempts')
    WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
)
SELECT
    kind,
    name,
    count(DISTINCT id) AS tried,
    count(DISTINCT CASE WHEN worked IN ('true', '1') THEN id END) AS served,
    count(DISTINCT CASE WHEN worked IN ('true', '1') AND environment_id IS NOT NULL THEN id END) AS environments,
    count(DISTINCT CASE WHEN worked IN ('true', '1') AND status = 'validated' THEN id END) AS validated,
    CAST(sum(n_requirements) AS INTEGER) AS n_requirements
FROM attempt
GROUP BY kind, name
ORDER BY kind DESC, tried DESC, name;

-- name: jobs
-- How many jobs of each stage are in each state.
SELECT job.stage, job.state, count(*) AS n
FROM job
GROUP BY job.stage, job.state
ORDER BY
    CASE job.stage
        WHEN 'crawl' THEN 1 WHEN 'candidate' THEN 2 WHEN 'environment' THEN 3
        WHEN 'validation' THEN 4 WHEN 'rollout' THEN 5 WHEN 'grade' THEN 6 ELSE 7
    END,
    job.state;

-- name: gauges
-- What `swefactory metrics` tells Prometheus: one row a value, with its two labels.
SELECT 'jobs' AS gauge, job.stage AS first_label, job.state AS second_label, CAST(count(*) AS FLOAT) AS value
FROM job GROUP BY job.stage, job.state
UNION ALL
SELECT 'rejections', job.stage, job.reason, CAST(count(*) AS FLOAT)
FROM job WHERE job.state = 'rejected' GROUP BY job.stage, job.reason
UNION ALL
SELECT 'stage_held', stage_hold.stage, '', 1.0 FROM stage_hold
UNION ALL
SELECT 'test_runs', CASE WHEN test_run.rollout_id IS NULL THEN 'validation' ELSE 'grade' END, test_run.status,
    CAST(count(*) AS FLOAT)
FROM test_run GROUP BY 2, 3
UNION ALL
SELECT 'test_run_seconds', CASE WHEN test_run.rollout_id IS NULL THEN 'validation' ELSE 'grade' END, test_run.status,
    sum(test_run.duration_s)
FROM test_run GROUP BY 2, 3
UNION ALL
SELECT 'environment_bytes', environment_build.sandbox, 'unique', CAST(sum(environment_build.unique_bytes) AS FLOAT)
FROM environment_build WHERE environment_build.evicted_at IS NULL GROUP BY environment_build.sandbox
UNION ALL
SELECT 'github_quota_left', substr(api_quota.credential, 1, 12), api_quota.resource,
    CAST(sum(api_quota.n_left) AS FLOAT)
FROM api_quota WHERE api_quota.n_left IS NOT NULL GROUP BY 2, 3
UNION ALL
SELECT 'rollouts', agent_config.name, rollout.exit_status, CAST(count(*) AS FLOAT)
FROM rollout JOIN agent_config ON agent_config.id = rollout.agent_config_id
WHERE rollout.exit_status IS NOT NULL GROUP BY 2, 3
UNION ALL
SELECT 'model_tokens', agent_config.model, 'prompt', CAST(sum(rollout.n_prompt_tokens) AS FLOAT)
FROM rollout JOIN agent_config ON agent_config.id = rollout.agent_config_id WHERE agent_config.model <> '' GROUP BY 2
UNION ALL
SELECT 'model_tokens', agent_config.model, 'completion', CAST(sum(rollout.n_completion_tokens) AS FLOAT)
FROM rollout JOIN agent_config ON agent_config.id = rollout.agent_config_id WHERE agent_config.model <> '' GROUP BY 2
UNION ALL
SELECT 'model_cost_usd', agent_config.model, '', sum(rollout.cost_usd)
FROM rollout JOIN agent_config ON agent_config.id = rollout.agent_config_id WHERE agent_config.model <> '' GROUP BY 2
ORDER BY 1, 2, 3;

-- name: sizes
-- What `swefactory sizing` counts: how many there are of each kind, and the bytes they take.
WITH size AS (
    SELECT 'repositories' AS what, count(*) AS n, CAST(0 AS FLOAT) AS bytes FROM repository
    UNION ALL
    SELECT 'pull_requests_examined', coalesce(sum(crawl.n_examined), 0), 0 FROM crawl
    UNION ALL
    SELECT 'candidates', count(*), 0 FROM task_instance
    UNION ALL
    SELECT 'instances', count(*), 0 FROM task_instance WHERE task_instance.status = 'validated'
    UNION ALL
    SELECT 'rollouts', count(*), 0 FROM rollout WHERE rollout.finished_at IS NOT NULL
    UNION ALL
    SELECT 'environments', count(*), coalesce(sum(environment_build.unique_bytes), 0)
    FROM environment_build WHERE environment_build.unique_bytes > 0
    UNION ALL
    SELECT 'artifacts', count(*), coalesce(sum(artifact.size_bytes), 0) FROM artifact
)
SELECT what, n, bytes FROM size WHERE n > 0 ORDER BY what;

-- name: waiting
-- Jobs that have not ended, soonest first: the time before which they are not tried, who works on them, why they wait.
SELECT
    job.id AS job_id,
    job.stage,
    job.subject_id,
    job.state,
    job.attempt,
    substr(CAST(job.not_before AS TEXT), 1, 19) AS not_before,
    job.lease_owner,
    job.message
FROM job
WHERE job.state IN ('todo', 'queued', 'doing', 'failed')
ORDER BY job.not_before, job.id;

-- name: dead
-- Jobs we gave up after their last attempt, and the last message of each: our fault, never the subject's.
SELECT
    job.id AS job_id,
    job.stage,
    job.subject_id,
    job.attempt,
    substr(CAST(job.finished_at AS TEXT), 1, 19) AS finished_at,
    job.message
FROM job
WHERE job.state = 'dead'
ORDER BY job.id;

-- name: rollouts
-- Each rollout: who tried what, how it ended, and what it took.
SELECT
    task_instance.instance_id,
    agent_config.name AS agent,
    rollout.replica,
    rollout.exit_status,
    CASE WHEN rollout.resolved THEN 'yes' WHEN NOT rollout.resolved THEN 'no' END AS resolved,
    json_array_length(rollout.suspicious) AS n_suspicious,
    rollout.n_turns,
    rollout.n_prompt_tokens + rollout.n_completion_tokens AS n_tokens,
    rollout.cost_usd
FROM rollout
JOIN task_instance ON task_instance.id = rollout.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
JOIN agent_config ON agent_config.id = rollout.agent_config_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
ORDER BY task_instance.instance_id, agent_config.name, agent_config.id, rollout.replica;

-- name: agents
-- How many task instances each agent resolved. A rollout that ended by our own fault or the model server's, that was
-- called off, or whose patch is suspicious counts for nothing.
SELECT
    agent_config.name AS agent,
    agent_config.model,
    count(*) AS rollouts,
    count(rollout.resolved) AS graded,
    count(CASE WHEN rollout.resolved THEN 1 END) AS resolved,
    CAST(sum(rollout.n_turns) AS INTEGER) AS n_turns,
    sum(rollout.cost_usd) AS cost_usd
FROM rollout
JOIN agent_config ON agent_config.id = rollout.agent_config_id
JOIN task_instance ON task_instance.id = rollout.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
WHERE
    rollout.finished_at IS NOT NULL
    AND rollout.exit_status NOT IN ('infrastructure_error', 'model_error', 'cancelled')
    AND json_array_length(rollout.suspicious) = 0
    AND (CAST(:repository AS TEXT) IS NULL OR repository.name = :repository)
GROUP BY agent_config.id, agent_config.name, agent_config.model
ORDER BY agent_config.name, agent_config.id;

-- name: drift
-- What changed between one validation of an instance and the next: its verdict, and tests that changed what they prove.
WITH pair AS (
    SELECT old.id AS old_id, new.id AS new_id, new.task_instance_id, new.number, old.verdict AS old_verdict,
        new.verdict AS new_verdict, new.reason, new.finished_at
    FROM validation AS new
    JOIN validation AS old ON old.task_instance_id = new.task_instance_id AND old.number = new.number - 1
)
SELECT
    task_instance.instance_id,
    pair.number AS validation,
    pair.old_verdict,
    pair.new_verdict,
    pair.reason,
    (
        SELECT count(*) FROM test_verdict AS earlier
        JOIN test_verdict AS later
            ON later.validation_id = pair.new_id AND later.test_digest = earlier.test_digest
        WHERE earlier.validation_id = pair.old_id AND later.change <> earlier.change
    ) AS n_changed,
    (
        SELECT count(*) FROM test_verdict AS earlier
        WHERE earlier.validation_id = pair.old_id AND NOT EXISTS (
            SELECT 1 FROM test_verdict AS later
            WHERE later.validation_id = pair.new_id AND later.test_digest = earlier.test_digest
        )
    ) AS n_gone,
    (
        SELECT count(*) FROM test_verdict AS later
        WHERE later.validation_id = pair.new_id AND NOT EXISTS (
            SELECT 1 FROM test_verdict AS earlier
            WHERE earlier.validation_id = pair.old_id AND earlier.test_digest = later.test_digest
        )
    ) AS n_new,
    substr(CAST(pair.finished_at AS TEXT), 1, 19) AS finished_at
FROM pair
JOIN task_instance ON task_instance.id = pair.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
ORDER BY task_instance.instance_id, pair.number;

-- name: stale_certificates
-- Validated instances by the age of their newest validation, oldest first; with before, those older than that time.
SELECT
    task_instance.instance_id,
    validation.number AS validation,
    validation.tier,
    validation.n_runs,
    substr(CAST(validation.finished_at AS TEXT), 1, 19) AS finished_at
FROM task_instance
JOIN repository ON repository.id = task_instance.repository_id
JOIN validation ON validation.task_instance_id = task_instance.id
WHERE
    task_instance.status = 'validated'
    AND validation.number = (
        SELECT max(newest.number) FROM validation AS newest WHERE newest.task_instance_id = task_instance.id
    )
    AND (CAST(:repository AS TEXT) IS NULL OR repository.name = :repository)
    AND (CAST(:before AS TEXT) IS NULL OR substr(CAST(validation.finished_at AS TEXT), 1, 19) < :before)
ORDER BY validation.finished_at, task_instance.instance_id;

-- name: unstable_tests
-- Tests that differ between runs of one state, or need a network: why, and how often at most they differ (95 %).
SELECT
    task_instance.instance_id,
    test_verdict.test_id,
    test_verdict.change,
    test_verdict.before,
    test_verdict.after,
    test_verdict.n_runs,
    test_verdict.n_flips,
    test_verdict.flip_rate_upper
FROM test_verdict
JOIN validation ON validation.id = test_verdict.validation_id
JOIN task_instance ON task_instance.id = validation.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
WHERE
    (
        test_verdict.before NOT IN ('stable_pass', 'stable_fail', 'stable_skip')
        OR test_verdict.after NOT IN ('stable_pass', 'stable_fail', 'stable_skip')
    )
    AND (CAST(:repository AS TEXT) IS NULL OR repository.name = :repository)
ORDER BY task_instance.instance_id, validation.number, test_verdict.test_id;

-- name: rollout_steps
-- Each step of each rollout: its tokens, its cost, and where its time went; also of attempts that were lost.
SELECT
    rollout_step.rollout_id,
    task_instance.instance_id,
    agent_config.name AS agent,
    rollout_step.attempt,
    rollout_step.number AS step,
    CAST(rollout_step.tools AS TEXT) AS tools,
    rollout_step.n_errors,
    rollout_step.n_prompt_tokens,
    rollout_step.n_completion_tokens,
    rollout_step.n_cached_tokens,
    rollout_step.n_reasoning_tokens,
    rollout_step.cost_usd,
    rollout_step.model_s,
    rollout_step.tools_s,
    rollout_step.overhead_s
FROM rollout_step
JOIN rollout ON rollout.id = rollout_step.rollout_id
JOIN task_instance ON task_instance.id = rollout.task_instance_id
JOIN agent_config ON agent_config.id = rollout.agent_config_id
WHERE CAST(:rollout AS TEXT) IS NULL OR CAST(rollout.id AS TEXT) = CAST(:rollout AS TEXT)
ORDER BY rollout_step.rollout_id, rollout_step.attempt, rollout_step.number;

-- name: rollout_attempts
-- How each attempt at each rollout began, where there was more than one, and what it cost.
SELECT
    rollout_attempt.rollout_id,
    task_instance.instance_id,
    rollout_attempt.number AS attempt,
    rollout_attempt.way,
    rollout_attempt.detail,
    (
        SELECT count(*) FROM rollout_step
        WHERE rollout_step.rollout_id = rollout_attempt.rollout_id AND rollout_step.attempt = rollout_attempt.number
    ) AS n_steps,
    (
        SELECT coalesce(sum(rollout_step.cost_usd), 0) FROM rollout_step
        WHERE rollout_step.rollout_id = rollout_attempt.rollout_id AND rollout_step.attempt = rollout_attempt.number
    ) AS cost_usd
FROM rollout_attempt
JOIN rollout ON rollout.id = rollout_attempt.rollout_id
JOIN task_instance ON task_instance.id = rollout.task_instance_id
WHERE rollout_attempt.rollout_id IN (SELECT other.rollout_id FROM rollout_attempt AS other WHERE other.number > 1)
ORDER BY rollout_attempt.rollout_id, rollout_attempt.number;

-- name: cheat_flags
-- What in trajectories looks like cheating, each with the event that shows it.
SELECT
    rollout_flag.rollout_id,
    task_instance.instance_id,
    agent_config.name AS agent,
    rollout_flag.kind,
    rollout_flag.event_number,
    rollout_flag.excerpt,
    CASE WHEN rollout.resolved THEN 'yes' WHEN NOT rollout.resolved THEN 'no' END AS resolved
FROM rollout_flag
JOIN rollout ON rollout.id = rollout_flag.rollout_id
JOIN task_instance ON task_instance.id = rollout.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
JOIN agent_config ON agent_config.id = rollout.agent_config_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
ORDER BY rollout_flag.rollout_id, rollout_flag.event_number, rollout_flag.kind;

-- name: rollout_scores
-- What each critic says of each rollout; of reproduction tests, also whose. Without a score: not asked yet, or no test.
SELECT
    task_instance.instance_id,
    agent_config.name AS agent,
    rollout.replica,
    rollout_score.rollout_id,
    rollout_score.critic,
    CASE WHEN rollout_score.critic = 'reproduction' THEN rollout_score.evidence_id END AS tests_of,
    rollout_score.score,
    CAST(rollout_score.detail AS TEXT) AS detail,
    rollout_score.cost_usd,
    substr(CAST(rollout_score.scored_at AS TEXT), 1, 19) AS scored_at
FROM rollout_score
JOIN rollout ON rollout.id = rollout_score.rollout_id
JOIN task_instance ON task_instance.id = rollout.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
JOIN agent_config ON agent_config.id = rollout.agent_config_id
WHERE CAST(:repository AS TEXT) IS NULL OR repository.name = :repository
ORDER BY
    task_instance.instance_id, agent_config.name, agent_config.id, rollout.replica, rollout_score.critic,
    rollout_score.evidence_id;

-- name: tries
-- Tries of each agent at each task instance that count, and how many solved it; see pass@k in `rollout rates`.
SELECT
    agent_config.name AS agent,
    agent_config.model,
    task_instance.instance_id,
    count(*) AS n,
    count(CASE WHEN rollout.resolved THEN 1 END) AS n_resolved
FROM rollout
JOIN agent_config ON agent_config.id = rollout.agent_config_id
JOIN task_instance ON task_instance.id = rollout.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
WHERE
    rollout.resolved IS NOT NULL
    AND rollout.exit_status NOT IN ('infrastructure_error', 'model_error', 'cancelled')
    AND json_array_length(rollout.suspicious) = 0
    AND (CAST(:repository AS TEXT) IS NULL OR repository.name = :repository)
GROUP BY agent_config.id, agent_config.name, agent_config.model, task_instance.instance_id
ORDER BY agent_config.name, agent_config.id, task_instance.instance_id;

-- name: resolve_rates
-- Agents side by side: instances tried, tries that count and ones that do not, the share of tries that resolved (the mean
-- over instances, which is pass@1), and how many instances none, some or all of its tries solve.
WITH try AS (
    SELECT
        rollout.agent_config_id,
        rollout.task_instance_id,
        count(CASE WHEN counts.it = 1 THEN 1 END) AS n,
        count(CASE WHEN counts.it = 1 AND rollout.resolved THEN 1 END) AS n_resolved,
        count(CASE WHEN counts.it = 0 THEN 1 END) AS n_masked,
        CAST(sum(rollout.n_turns) AS INTEGER) AS n_turns,
        sum(rollout.cost_usd + rollout.lost_cost_usd) AS cost_usd
    FROM rollout
    JOIN (
        SELECT
            other.id,
            CASE
                WHEN other.resolved IS NOT NULL
                    AND other.exit_status NOT IN ('infrastructure_error', 'model_error', 'cancelled')
                    AND json_array_length(other.suspicious) = 0
                    THEN 1
                ELSE 0
            END AS it
        FROM rollout AS other
    ) AS counts ON counts.id = rollout.id
    JOIN task_instance ON task_instance.id = rollout.task_instance_id
    JOIN repository ON repository.id = task_instance.repository_id
    WHERE rollout.finished_at IS NOT NULL AND (CAST(:repository AS TEXT) IS NULL OR repository.name = :repository)
    GROUP BY rollout.agent_config_id, rollout.task_instance_id
)
SELECT
    agent_config.name AS agent,
    agent_config.model,
    count(CASE WHEN try.n > 0 THEN 1 END) AS instances,
    CAST(sum(try.n) AS INTEGER) AS rollouts,
    CAST(sum(try.n_masked) AS INTEGER) AS masked,
    CAST(sum(try.n_resolved) AS INTEGER) AS resolved,
    avg(CASE WHEN try.n > 0 THEN CAST(try.n_resolved AS DOUBLE PRECISION) / try.n END) AS resolve_rate,
    count(CASE WHEN try.n > 0 AND try.n_resolved = 0 THEN 1 END) AS none_solve,
    count(CASE WHEN try.n_resolved > 0 AND try.n_resolved < try.n THEN 1 END) AS some_solve,
    count(CASE WHEN try.n > 0 AND try.n_resolved = try.n THEN 1 END) AS all_solve,
    CAST(sum(try.n_turns) AS INTEGER) AS n_turns,
    sum(try.cost_usd) AS cost_usd
FROM try
JOIN agent_config ON agent_config.id = try.agent_config_id
GROUP BY agent_config.id, agent_config.name, agent_config.model
ORDER BY agent_config.name, agent_config.id;

-- name: difficulty
-- Each task instance that an agent with a model tried: how many of its tries count and resolved, over all such agents.
SELECT
    task_instance.instance_id,
    count(*) AS n,
    count(CASE WHEN rollout.resolved THEN 1 END) AS n_resolved,
    CASE
        WHEN count(CASE WHEN rollout.resolved THEN 1 END) = 0 THEN 'none'
        WHEN count(CASE WHEN rollout.resolved THEN 1 END) = count(*) THEN 'all'
        ELSE 'some'
    END AS band
FROM rollout
JOIN agent_config ON agent_config.id = rollout.agent_config_id
JOIN task_instance ON task_instance.id = rollout.task_instance_id
JOIN repository ON repository.id = task_instance.repository_id
WHERE
    agent_config.model <> ''
    AND rollout.resolved IS NOT NULL
    AND rollout.exit_status NOT IN ('infrastructure_error', 'model_error', 'cancelled')
    AND json_array_length(rollout.suspicious) = 0
    AND (CAST(:repository AS TEXT) IS NULL OR repository.name = :repository)
GROUP BY task_instance.instance_id
ORDER BY count(CASE WHEN rollout.resolved THEN 1 END) * 1.0 / count(*), task_instance.instance_id;

-- name: campaigns
-- Each campaign: its budget, what it has cost, and how far its rollouts have come.
SELECT
    campaign.name AS campaign,
    campaign.max_cost_usd,
    campaign.cost_usd,
    campaign.max_duration_s,
    substr(CAST(campaign.started_at AS TEXT), 1, 19) AS started_at,
    count(rollout.id) AS rollouts,
    count(rollout.finished_at) AS finished,
    count(CASE WHEN rollout.exit_status = 'cancelled' THEN 1 END) AS cancelled,
    count(CASE WHEN rollout.resolved THEN 1 END) AS resolved
FROM campaign
LEFT JOIN rollout ON rollout.campaign_id = campaign.id
GROUP BY campaign.id, campaign.name, campaign.max_cost_usd, campaign.cost_usd, campaign.max_duration_s, campaign.started_at
ORDER BY campaign.name;
