"""The admin site: our name on it, an overview as its index, and two forms that call services.

A new key is shown in the answer to the POST itself and stored nowhere: not in a message, which
would travel in a cookie, and not behind a redirect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path
from django.utils import timezone

from admin_ui.acting import actor_of
from admin_ui.forms import LimitsForm, NewKeyForm, NewShardForm
from modeldefs.wire.problems import Problem


class ShardpointAdminSite(AdminSite):
    """Django's admin, headed as what it is: the cluster's."""

    site_header = "Shardpoint"
    site_title = "Shardpoint"
    index_title = "Is all well?"
    index_template = "admin_ui/overview.html"

    def get_urls(self) -> list[URLPattern | URLResolver]:
        """Return Django's pages and ours, each behind sign-in and its permission."""
        view: Callable[..., Any] = self.admin_view
        return [
            path("trust/apikey/create/", view(self.new_key), name="key-create"),
            path("trust/apikey/<str:kid>/limit/", view(self.limit_key), name="key-limit"),
            path("registry/shard/register/", view(self.new_shard), name="shard-register"),
            *super().get_urls(),
        ]

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show shards, map, jobs and keys at a glance."""
        from admin_ui.overview import overview

        if request.user.has_perm("registry.view_shard"):
            extra_context = {**(extra_context or {}), "overview": overview()}
        return super().index(request, extra_context)

    def _page(
        self, request: HttpRequest, template: str, title: str, **known: Any
    ) -> TemplateResponse:
        context = {**self.each_context(request), "title": title, **known}
        return TemplateResponse(request, template, context)

    def new_key(self, request: HttpRequest) -> HttpResponse:
        """Create a key; the answer to the POST shows it, once."""
        from dispatcher_site.registry.services import keys

        if not request.user.has_perm("trust.add_apikey"):
            raise PermissionDenied
        form = NewKeyForm(request.POST or None, initial={"owner": request.user.get_username()})
        template = "admin_ui/form.html"
        if request.method != "POST" or not form.is_valid():
            return self._page(request, template, "Create a key", form=form, act="Create")
        given = form.cleaned_data
        created = keys.create_key(
            actor=actor_of(request),
            owner=given["owner"],
            name=given["name"],
            prefix=given["kind"],
            scopes=given["scopes"],
            row_filter=given["row_filter"],
            expires_at=timezone.now() + timedelta(days=given["days"]),
            limits=keys.Limits(**form.limits()),
        )
        page = self._page(
            request, "admin_ui/key_created.html", "Keep this key now", text=created.text
        )
        page["Cache-Control"] = "no-store"
        page["Referrer-Policy"] = "no-referrer"
        return page

    def limit_key(self, request: HttpRequest, kid: str) -> HttpResponse:
        """Replace the limits of a key."""
        from dispatcher_site.registry.services import keys
        from dispatcher_site.trust.models import ApiKey

        if not request.user.has_perm("trust.change_apikey"):
            raise PermissionDenied
        key = get_object_or_404(ApiKey, kid=kid)
        form = LimitsForm(request.POST or None, initial=asdict(keys.limits_of(key)))
        if request.method == "POST" and form.is_valid():
            limits = keys.Limits(**form.limits())
            try:
                keys.limit_key(actor=actor_of(request), kid=kid, limits=limits)
            except Problem as problem:
                form.add_error(None, str(problem))
            else:
                messages.success(request, f"{key}: limits replaced")
                return redirect("admin:trust_apikey_changelist")
        return self._page(
            request, "admin_ui/form.html", f"Limits of {key}", form=form, act="Replace"
        )

    def new_shard(self, request: HttpRequest) -> HttpResponse:
        """Enrol a node and place it."""
        from dispatcher_site.registry.deadline_http import NodeUnreachable
        from dispatcher_site.registry.services import shards

        if not request.user.has_perm("registry.add_shard"):
            raise PermissionDenied
        form = NewShardForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            given, actor = form.cleaned_data, actor_of(request)
            try:
                shard, enrolled = shards.register_shard(
                    actor=actor,
                    host=given["host"],
                    port=given["port"],
                    token=given["token"] or None,
                )
                shards.place_shards(actor=actor, hold_rows=enrolled.rows > 0)
            except (Problem, NodeUnreachable) as failure:
                form.add_error(None, str(failure))
            else:
                messages.success(request, f"{shard.name}: enrolled, {shard.fingerprint}")
                return redirect("admin:registry_shard_changelist")
        return self._page(
            request, "admin_ui/form.html", "Register a shard", form=form, act="Register"
        )
