"""The catalog's words. One property: each is stored by its value, so a new one needs no migration.

What knows no tables (sources, recipes, sandboxes, agents) takes its words from here.
"""

import enum


class SourceKind(enum.StrEnum):
    """Where a repository's pull requests are read from."""

    GITHUB = "github"
    GIT_HISTORY = "git_history"
    GH_ARCHIVE = "gh_archive"  # numbers of pull requests from hour files, the rest from GitHub


class StageName(enum.StrEnum):
    """The steps of work, in their order; `job.stage`."""

    CRAWL = "crawl"
    CANDIDATE = "candidate"
    ENVIRONMENT = "environment"
    VALIDATION = "validation"
    ROLLOUT = "rollout"
    GRADE = "grade"
    SCORE = "score"


class JobState(enum.StrEnum):
    """todo → queued → doing → succeeded | rejected | failed (will retry) → dead; or cancelled."""

    TODO = "todo"
    QUEUED = "queued"
    DOING = "doing"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


class InstanceStatus(enum.StrEnum):
    """How far a task instance has come."""

    CANDIDATE = "candidate"
    VALIDATED = "validated"
    REJECTED = "rejected"


class RejectReason(enum.StrEnum):
    """Why a subject was dropped: a verdict on it, never our own fault."""

    # crawl
    REPOSITORY_NOT_FOUND = "repository_not_found"
    REPOSITORY_ARCHIVED = "repository_archived"
    REPOSITORY_IS_FORK = "repository_is_fork"
    REPOSITORY_TOO_LARGE = "repository_too_large"
    REPOSITORY_OTHER_LANGUAGE = "repository_other_language"
    REPOSITORY_FEW_STARS = "repository_few_stars"
    REPOSITORY_INACTIVE = "repository_inactive"
    LICENSE_NOT_ALLOWED = "license_not_allowed"
    # candidate
    NO_LINKED_ISSUE = "no_linked_issue"
    TOO_MANY_ISSUES = "too_many_issues"  # a release or a long-lived branch, no one problem
    ISSUE_WITHOUT_TEXT = "issue_without_text"
    DIFF_UNREADABLE = "diff_unreadable"
    BASE_COMMIT_MISSING = "base_commit_missing"
    DOCS_ONLY = "docs_only"
    NO_TEST_CHANGE = "no_test_change"
    NO_SOURCE_CHANGE = "no_source_change"
    NO_PYTHON_CHANGE = "no_python_change"
    DUPLICATE = "duplicate"  # an instance of that id exists, of a repository that had this name
    ISSUE_OPENED_AFTER_MERGE = "issue_opened_after_merge"
    STATEMENT_IMAGES_ONLY = "statement_images_only"
    STATEMENT_LEAKS_FIX = "statement_leaks_fix"  # what is left without the leaks says too little
    STATEMENT_TOO_SHORT = "statement_too_short"
    BENCHMARK_CONTAMINATION = "benchmark_contamination"
    DUPLICATE_PATCH = "duplicate_patch"
    NEAR_DUPLICATE_ISSUE = "near_duplicate_issue"  # of another repository's instance
    # environment
    NOT_PYTHON_PROJECT = "not_python_project"
    NO_INTERPRETER = "no_interpreter"
    DEPENDENCIES_UNRESOLVABLE = "dependencies_unresolvable"
    BUILD_FAILED = "build_failed"
    SYSTEM_PACKAGE_MISSING = "system_package_missing"
    # validation
    PATCH_DOES_NOT_APPLY = "patch_does_not_apply"
    COLLECTION_ERROR = "collection_error"
    NO_TESTS_COLLECTED = "no_tests_collected"
    TESTS_PASS_BEFORE = "tests_pass_before"
    NO_FAIL_TO_PASS = "no_fail_to_pass"
    FLAKY_FAIL_TO_PASS = "flaky_fail_to_pass"
    PASS_TO_FAIL = "pass_to_fail"  # the gold patch breaks a test that is stable in both states
    PUBLISHED_TESTS_DIFFER = "published_tests_differ"  # an import's FAIL_TO_PASS is not what the runs show
    CHECKOUT_LEAKS_FIX = "checkout_leaks_fix"  # what an agent would see holds more than the base commit
    TESTS_TIME_OUT = "tests_time_out"
    TEST_RUN_VOID = "test_run_void"


class LinkSignal(enum.StrEnum):
    """What says that a pull request resolves an issue."""

    CLOSING_REFERENCE = "closing_reference"  # GitHub's own list
    CLOSER = "closer"  # the issue's timeline: it was closed by this pull request or one of its commits
    KEYWORD_TITLE = "keyword_title"
    KEYWORD_BODY = "keyword_body"
    KEYWORD_COMMIT = "keyword_commit"
    CHANGELOG = "changelog"  # an entry or a fragment that cites the issue


class RunState(enum.StrEnum):
    """What the tree held when tests ran: base + test_patch, the same + patch, or the same + model_patch."""

    BEFORE = "before"
    AFTER = "after"
    MODEL = "model"


class RunStatus(enum.StrEnum):
    """Whether a test run is evidence: only a completed one is."""

    COMPLETED = "completed"
    TIMED_OUT = "timed_out"
    VOID = "void"


class Outcome(enum.StrEnum):
    """How one test ended in one run."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"


class Stability(enum.StrEnum):
    """What the runs of one state say of a test; see swefactory.stability."""

    STABLE_PASS = "stable_pass"
    STABLE_FAIL = "stable_fail"
    STABLE_SKIP = "stable_skip"  # skipped, xfailed or xpassed each time: proves nothing
    FLAKY = "flaky"
    ORDER_DEPENDENT = "order_dependent"
    NETWORK_DEPENDENT = "network_dependent"
    TIME_DEPENDENT = "time_dependent"
    SLOW = "slow"  # fails only with little CPU


class Change(enum.StrEnum):
    """What the gold patch does to a test."""

    FAIL_TO_PASS = "fail_to_pass"
    ERROR_TO_PASS = "error_to_pass"  # counts as fail_to_pass; before, it could not even start
    PASS_TO_PASS = "pass_to_pass"
    PASS_TO_FAIL = "pass_to_fail"
    FAIL_TO_FAIL = "fail_to_fail"
    UNSTABLE = "unstable"
    NOTHING = "nothing"  # skipped in a state


class Tier(enum.StrEnum):
    """How many runs of each state prove an instance."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"


class ValidationVerdict(enum.StrEnum):
    VALID = "valid"
    REJECTED = "rejected"


class AgentKind(enum.StrEnum):
    """oracle applies the gold patch, nop does nothing: the two ends of the scale."""

    ORACLE = "oracle"
    NOP = "nop"
    OPENHANDS = "openhands"


class ExitStatus(enum.StrEnum):
    """How a rollout ended; the last three are not the agent's doing and masked from every rate."""

    SUBMITTED = "submitted"
    EMPTY_PATCH = "empty_patch"
    TURN_LIMIT = "turn_limit"
    COST_LIMIT = "cost_limit"
    TOKEN_LIMIT = "token_limit"
    TIMEOUT = "timeout"
    STUCK = "stuck"
    SANDBOX_VIOLATION = "sandbox_violation"  # it went beyond what its sandbox allows, and broke it or was stopped
    MODEL_ERROR = "model_error"
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    CANCELLED = "cancelled"  # by somebody, or by the budget of its campaign


class AttemptWay(enum.StrEnum):
    """How an attempt at a rollout began."""

    FIRST = "first"
    RESUMED = "resumed"  # from the last checkpoint of the attempt before
    RESTARTED = "restarted"


class FlagKind(enum.StrEnum):
    """What in a trajectory looks like cheating; see swefactory.cheat_flags."""

    HISTORY_DIGGING = "history_digging"
    PACKAGE_DOWNLOAD = "package_download"
    TEST_EDIT = "test_edit"
    RUNNER_EDIT = "runner_edit"


class CriticKind(enum.StrEnum):
    """What a choice among several rollouts of one instance can go by."""

    PASS_TO_PASS = "pass_to_pass"  # how much of it, as the base commit has it, a patch leaves passing
    REPRODUCTION = "reproduction"  # how many of the tests that the agents themselves wrote hold
    JUDGE = "judge"  # a model, through LiteLLM
    REWARD = "reward"  # a reward model's endpoint


class ExportFormat(enum.StrEnum):
    SWEBENCH = "swebench"
    HARBOR = "harbor"
    DATASET = "dataset"
    TRAJECTORIES = "trajectories"
    PREFERENCES = "preferences"
    SUBSETS = "subsets"
