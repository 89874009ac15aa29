"""The gunicorn worker class of a node.

Gunicorn imports it before Django is set up, so it names its handler instead of importing it.
"""

from __future__ import annotations

from modeldefs.wire.worker import make_worker

NodeWorker = make_worker("shardnode.runtime.handler.handler")
