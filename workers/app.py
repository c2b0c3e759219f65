"""The Celery application. One property: it keeps no state, so losing the broker loses nothing.

A message is a hint, "look at job 17": it is acknowledged early, has no result, no retry and no ETA. What is to be
done, by whom and until when stands in the catalog; a job whose worker is lost comes back when its lease ends.
Celery does what it is good at: process pools, a queue per stage, time limits, soft shutdown, remote control.

    celery -A workers.app worker -Q crawl,candidate     celery -A workers.app beat
"""

from typing import Any

from celery import Celery, signals
from kombu import Queue

from db.enums import StageName
from swefactory.config import Settings

CONTROL = "control"  # the queue of dispatch itself
DISPATCH = "swefactory.dispatch"
RUN = "swefactory.run"
_VISIBILITY_TIMEOUT_S = 900  # of messages not yet acknowledged, which here is: not yet started
_TASK_LIMIT_S = 6 * 3600.0  # the last resort; every command inside a stage has its own, shorter limit
_SOFT_SHUTDOWN_S = 30.0
_TICK_S = 86_400.0


def make_app(settings: Settings | None = None) -> Celery:
    """The application; without `settings` they are read from the environment when first needed, not before."""
    app = Celery("swefactory", include=["workers.tasks"])
    app.add_defaults(lambda: configuration(settings or Settings()))
    return app


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's settings."""
    return {
        "broker_url": settings.redis_url,
        "broker_transport_options": _transport(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a broker that is away comes back; workers wait for it
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # the lease is in the catalog, not in the broker
        "task_acks_late": False,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_queues": [Queue(stage.value) for stage in StageName] + [Queue(CONTROL)],
        "task_default_queue": CONTROL,
        "task_create_missing_queues": False,  # a misspelt -Q is an error, not a worker that waits for ever
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,  # a hint is taken when a process is free for it
        "task_soft_time_limit": _TASK_LIMIT_S - 60,
        "task_time_limit": _TASK_LIMIT_S,
        "worker_max_tasks_per_child": 100,
        "worker_max_memory_per_child": 1_500_000,  # kB
        "worker_soft_shutdown_timeout": _SOFT_SHUTDOWN_S,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,  # a stand-in without an encoding fails the import of the agent's terminal
        "beat_scheduler": "celery.beat:Scheduler",  # in memory: a tick that was missed is not worth a file
        "beat_schedule": {"dispatch": _every(DISPATCH, settings.dispatch_interval_s)},
        "beat_max_loop_interval": 60,
    }


def _transport() -> dict[str, Any]:
    """Redis: nothing waits for ever on a connection that is half open."""
    return {
        "visibility_timeout": _VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": 30,
        "socket_connect_timeout": 10,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "retry_on_timeout": True,
        "global_keyprefix": "swefactory:",
    }


def _every(task: str, interval_s: float) -> dict[str, Any]:
    """A tick that nobody took for a day is dropped, so that they do not pile up. Not sooner: beat's clock sets that
    time and the worker's is held against it, and a worker a few seconds ahead would drop every tick there is."""
    return {"task": task, "schedule": interval_s, "options": {"queue": CONTROL, "expires": _TICK_S}}


@signals.heartbeat_sent.connect
def _touch(**_: object) -> None:
    """Says that this process is alive and that the broker hears it, to whoever looks at the file's time."""
    if path := Settings().heartbeat_file:
        path.touch()


@signals.beat_init.connect
def _touch_when_it_ticks(**_: object) -> None:
    signals.after_task_publish.connect(_touch)


app = make_app()
