"""Pages of the control API: numbered, 50 rows unless asked otherwise, 500 at most."""

from __future__ import annotations

from rest_framework.pagination import PageNumberPagination


class ControlPages(PageNumberPagination):
    """``?page=2&page_size=100``."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500
