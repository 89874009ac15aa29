"""The dispatcher as an ASGI application; the data path answers before it is asked."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dispatcher_site.settings")

application = get_asgi_application()
