"""Create the trust tables."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the tables."""

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField()),
                ("actor_kind", models.CharField(max_length=16)),
                ("actor", models.TextField()),
                ("via", models.CharField(max_length=16)),
                ("ip", models.TextField(blank=True, default="")),
                ("request_id", models.TextField(blank=True, default="")),
                ("action", models.CharField(max_length=60)),
                ("target", models.TextField(blank=True, default="")),
                ("before", models.JSONField(blank=True, null=True)),
                ("after", models.JSONField(blank=True, null=True)),
                ("reason", models.TextField(blank=True, default="")),
                ("dry_run", models.BooleanField(default=False)),
                ("outcome", models.CharField(default="done", max_length=16)),
                ("prev_hash", models.CharField(max_length=64)),
                ("hash", models.CharField(max_length=64)),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kid", models.CharField(max_length=10, unique=True)),
                ("name", models.CharField(blank=True, default="", max_length=100)),
                ("prefix", models.CharField(max_length=12)),
                (
                    "kind",
                    models.CharField(
                        choices=[("data", "Data"), ("control", "Control")],
                        default="data",
                        max_length=8,
                    ),
                ),
                ("environment", models.CharField(default="live", max_length=8)),
                ("digest", models.CharField(max_length=64)),
                ("pepper_v", models.PositiveIntegerField(default=1)),
                ("owner", models.CharField(max_length=150)),
                ("scopes", models.JSONField(default=list)),
                ("row_filter", models.JSONField(blank=True, default=dict)),
                ("cidrs", models.JSONField(blank=True, default=list)),
                ("rps", models.PositiveIntegerField(blank=True, null=True)),
                ("burst", models.PositiveIntegerField(blank=True, null=True)),
                ("concurrency", models.PositiveIntegerField(blank=True, null=True)),
                ("not_before", models.DateTimeField(blank=True, null=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_from", models.GenericIPAddressField(blank=True, null=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("created_by", models.CharField(blank=True, default="", max_length=150)),
                (
                    "rotated_from",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="rotated_to",
                        to="trust.apikey",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("revoked_at__isnull", True)),
                        fields=["kind"],
                        name="keys_that_live",
                    )
                ],
            },
        ),
    ]
