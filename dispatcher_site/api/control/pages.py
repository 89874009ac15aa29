"""Pages of the control API: numbered, 50 rows unless asked otherwise, 500 at most."""

from __future__ import annotations

from rest_framework.pagination import PageNumberPagination

from dispatcher_site.api.control.questions import PAGE_SIZE, PAGE_SIZE_MAX


class ControlPages(PageNumberPagination):
    """``?page=2&page_size=100``; what is no page was refused before (``questions``)."""

    page_size = PAGE_SIZE
    page_size_query_param = "page_size"
    max_page_size = PAGE_SIZE_MAX
