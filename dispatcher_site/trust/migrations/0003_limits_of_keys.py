"""Limits of a key by window: `rps` was never used."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Rename the rate, and give it a window."""

    dependencies = [("trust", "0002_audit_is_append_only")]
    operations = [
        migrations.RenameField("apikey", "rps", "rate"),
        migrations.AddField(
            "apikey", "window_s", models.PositiveIntegerField(blank=True, null=True)
        ),
    ]
