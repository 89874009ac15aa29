"""What people fill in: a new key, a new shard."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from dispatcher_site.registry.services.row_filters import checked_filter, filter_from_texts
from modeldefs.wire.keys import PREFIXES, parse_scope
from modeldefs.wire.problems import InvalidRequest
from modeldefs.wire.quotas import (
    CONCURRENCY_MAX,
    RATE_MAX,
    WINDOW_S_MAX,
    LimitsMalformed,
    checked_limits,
)

KIND_CHOICES = [("spk_live_", "caller"), ("spk_test_", "caller, test"), ("spa_", "control")]
DAYS_MAX = 3650


class LimitsForm(forms.Form):
    """The limits of a key: what is empty is no limit."""

    rate = forms.IntegerField(
        min_value=1, max_value=RATE_MAX, required=False, help_text="Requests per window; none: any"
    )
    window_s = forms.IntegerField(
        min_value=1, max_value=WINDOW_S_MAX, required=False, label="Window, seconds",
        help_text="Default 60",
    )  # fmt: skip
    burst = forms.IntegerField(
        min_value=1, max_value=RATE_MAX, required=False, help_text="At once; default the rate"
    )
    concurrency = forms.IntegerField(
        min_value=1, max_value=CONCURRENCY_MAX, required=False, help_text="Under way at once"
    )

    def limits(self) -> dict[str, int | None]:
        """Return the limits by name."""
        names = ("rate", "window_s", "burst", "concurrency")
        return {name: self.cleaned_data.get(name) for name in names}

    def clean(self) -> dict[str, Any]:
        """Return all fields; limits must fit each other."""
        super().clean()
        try:
            if checked_limits(**self.limits()) and self.cleaned_data.get("kind") == "spa_":
                self.add_error("kind", "Limits are for callers, not for control keys.")
        except LimitsMalformed as wrong:
            self.add_error(wrong.member, str(wrong))
        return self.cleaned_data


class NewKeyForm(LimitsForm):
    """A new API key."""

    name = forms.CharField(max_length=100, required=False)
    owner = forms.CharField(max_length=150)
    kind = forms.ChoiceField(choices=KIND_CHOICES)
    scopes = forms.CharField(
        initial="*:*:read", help_text="model@version:endpoint:verb, separated by spaces"
    )
    days = forms.IntegerField(
        min_value=1, max_value=DAYS_MAX, initial=90, label="Expires after, days"
    )

    row_filter = forms.CharField(
        max_length=1_000, required=False, label="Row filter",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="field=value, one a line: only rows that have it; none: all rows",
    )  # fmt: skip

    field_order = ("name", "owner", "kind", "scopes", "row_filter", "days")

    def clean_row_filter(self) -> dict[str, str]:
        """Return the filter, on fields and with values that the definitions know."""
        try:
            lines = str(self.cleaned_data["row_filter"]).splitlines()
            given = filter_from_texts([line for line in lines if line.strip()])
            kind = PREFIXES[self.cleaned_data.get("kind", "spk_live_")][0]
            return checked_filter(given, kind=kind)
        except InvalidRequest as refused:
            raise ValidationError([error.detail for error in refused.errors]) from refused

    def clean_scopes(self) -> list[str]:
        """Return the scopes, each well formed."""
        scopes = str(self.cleaned_data["scopes"]).split()
        for scope in scopes:
            try:
                parse_scope(scope)
            except ValueError as wrong:
                raise ValidationError(str(wrong)) from wrong
        return scopes


class NewShardForm(forms.Form):
    """A node to enrol."""

    host = forms.CharField(max_length=253, initial="127.0.0.1")
    port = forms.IntegerField(min_value=1, max_value=65535)
    token = forms.CharField(
        max_length=200, required=False, widget=forms.PasswordInput,
        help_text="The node's join token; not needed on this machine",
    )  # fmt: skip
