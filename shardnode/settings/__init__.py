"""Settings of a shard node: a lean Django project without admin, sessions or users.

Invariant: "default" is the login that writes rows and "ro" the one that cannot; neither may change
tables. The process of a node never holds the migration login.
"""

from __future__ import annotations

import secrets
from typing import Any

from shardnode.settings.environment import (
    definitions_from,
    django_database,
    join_token_from,
    node_config_from,
    run_dir_from,
    tuning_here,
)

NODE_CONFIG = node_config_from()
SHARDPOINT_DEFINITIONS = list(definitions_from(NODE_CONFIG))
SHARDPOINT_TUNING = tuning_here()
RUN_DIR = run_dir_from()
JOIN_TOKEN = join_token_from()

# Nothing here signs with it: no sessions, no cookies. Django asks for one.
SECRET_KEY = secrets.token_urlsafe(32)
DEBUG = False
# The node speaks to a dispatcher and to key holders, by whatever name they reach it; no answer
# contains a URL made from Host.
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
LANGUAGE_CODE = "en"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "ninja",
    "modeldefs.kit.apps.KitConfig",
    *SHARDPOINT_DEFINITIONS,
    "shardnode",
]
MIDDLEWARE = ["shardnode.api.replies.ProblemMiddleware"]
ROOT_URLCONF = "shardnode.urls"
ASGI_APPLICATION = "shardnode.asgi.application"
APPEND_SLASH = False

DATABASES: dict[str, dict[str, Any]] = (
    {
        "default": django_database(NODE_CONFIG.rw_dsn),
        "ro": django_database(NODE_CONFIG.ro_dsn),
    }
    if NODE_CONFIG is not None
    # Tracing definitions needs Postgres's SQL, though a provisioning command has no shard to ask.
    else {"default": django_database("dbname=no-shard-here")}
)

# A part of a bulk load; the protocol in front refuses larger bodies before reading them.
DATA_UPLOAD_MAX_MEMORY_SIZE = 17 * 1024 * 1024

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
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
