"""Django settings of the dispatcher, made from one frozen ``ENVIRONMENT``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from dispatcher_site.settings.environment import read_environment

ENVIRONMENT = read_environment()
# A second shell knows this cluster by RUN_DIR alone: its definitions are found where they were.
sys.path.extend(path for path in ENVIRONMENT.definitions_paths if path not in sys.path)
BASE_DIR = Path(__file__).resolve().parent.parent.parent

SECRET_KEY = ENVIRONMENT.secret_key
DEBUG = ENVIRONMENT.debug
ALLOWED_HOSTS = list(ENVIRONMENT.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(ENVIRONMENT.csrf_trusted_origins)

INSTALLED_APPS = [
    # Before the admin, whose templates it extends.
    "admin_ui.apps.AdminUiConfig",
    "admin_ui.apps.ShardpointAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "ninja",
    "dispatcher_site.registry",
    "dispatcher_site.trust",
    "dispatcher_site.health",
    "modeldefs.kit",
    *ENVIRONMENT.definitions,
]
SHARDPOINT_DEFINITIONS = list(ENVIRONMENT.definitions)
SHARDPOINT_TUNING = ENVIRONMENT.tuning
SHARDPOINT_METERS_DIR = ENVIRONMENT.run_dir / "metrics"

MIDDLEWARE = [
    "modeldefs.kit.handler.exact_answers",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "dispatcher_site.trust.middleware.RequestIdentity",
    "dispatcher_site.trust.middleware.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "dispatcher_site.urls"
ASGI_APPLICATION = "dispatcher_site.asgi.application"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database(url: str) -> dict[str, Any]:
    """Return Django's form of a libpq URL; without one, the first query says what is missing."""
    parts = conninfo_to_dict(url) if url else {}
    taken = {
        name: parts.pop(name, "") or "" for name in ("dbname", "user", "password", "host", "port")
    }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": taken["dbname"],
        "USER": taken["user"],
        "PASSWORD": taken["password"],
        "HOST": taken["host"],
        "PORT": str(taken["port"]),
        "OPTIONS": {"connect_timeout": 5, **parts},
        "CONN_MAX_AGE": 0,  # ASGI threads come and go: a kept connection would be lost with them
        "CONN_HEALTH_CHECKS": True,
    }


DATABASES = {"default": _database(ENVIRONMENT.database_url)}
DATABASE_ROUTERS = ["dispatcher_site.registry.routers.DefinitionsLiveOnShards"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "/static/"
# Found in the installed packages themselves: no collectstatic step, and nothing from outside.
STATIC_ROOT = None
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "dispatcher_site.api.refusals.csrf_failure"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ENVIRONMENT.https
SECURE_HSTS_SECONDS = 31_536_000 if ENVIRONMENT.https else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENVIRONMENT.https else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SHARDPOINT_CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "dispatcher_site.api.control.authentication.ControlKeyAuthentication",
        "dispatcher_site.api.control.authentication.AdminSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["dispatcher_site.api.control.authentication.MayControl"],
    "DEFAULT_PAGINATION_CLASS": "dispatcher_site.api.control.pages.ControlPages",
    "PAGE_SIZE": 50,
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": ["dispatcher_site.api.control.parsers.StrictJsonParser"],
    "DEFAULT_THROTTLE_CLASSES": ["dispatcher_site.api.control.throttles.ControlRate"],
    "DEFAULT_THROTTLE_RATES": {"control": "1200/min"},
    "EXCEPTION_HANDLER": "dispatcher_site.api.refusals.control_failure",
    "UNAUTHENTICATED_USER": None,
}

CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

CELERY_BROKER_URL = ENVIRONMENT.redis_url
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_ACKS_ON_FAILURE_OR_TIMEOUT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = 4
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
# A lost broker loses nothing (leases and outbox are rows in Postgres), so the waits are short; the
# sweep of unacknowledged messages is kombu's own, 10 x 10 s unless told otherwise.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "retry_on_timeout": True,
}
CELERY_BEAT_SCHEDULE_FILENAME = str(ENVIRONMENT.run_dir / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "relay-outbox": {
        "task": "registry.relay_outbox",
        "schedule": 1.0,
        "options": {"expires": 5},
    },
    "sweep-jobs": {"task": "registry.sweep_jobs", "schedule": 5.0, "options": {"expires": 10}},
    "sample-health": {"task": "health.sample", "schedule": 5.0, "options": {"expires": 5}},
    "forget-old-samples": {
        "task": "health.forget",
        "schedule": 600.0,
        "options": {"expires": 300},
    },
    "forget-old-rows": {
        "task": "registry.forget_old_rows",
        "schedule": 3600.0,
        "options": {"expires": 600},
    },
}

SHARDPOINT_JOB_KINDS = {
    "apply-definitions": "dispatcher_site.registry.jobs.apply_definitions.ApplyDefinitions",
    "publish-map": "dispatcher_site.registry.jobs.publish_map.PublishMap",
    "rehome": "dispatcher_site.rebalancing.rehome.Rehome",
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"},
        "json": {"format": "%(message)s"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        "json": {"class": "logging.StreamHandler", "formatter": "json"},
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django.request": {"level": "ERROR"},
        # One JSON document a line: failed and slow requests, and all if that was asked for.
        "shardpoint.requests": {"handlers": ["json"], "propagate": False},
    },
}
