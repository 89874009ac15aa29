"""Where Django looks for pages of the admin; they are in ``pages``."""

from __future__ import annotations

from admin_ui import pages

__all__ = ["pages"]
