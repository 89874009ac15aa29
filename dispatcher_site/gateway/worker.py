"""The gunicorn worker class of the front.

Gunicorn imports it before Django is set up, so it names its handler instead of importing it.
"""

from __future__ import annotations

from modeldefs.wire.worker import make_worker

FrontWorker = make_worker("dispatcher_site.gateway.handler.handler")
