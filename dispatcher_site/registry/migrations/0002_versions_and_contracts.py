"""Since when versions live and how they end, who uses old ones, and the contracts of endpoints."""

from __future__ import annotations

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="modelversion",
            name="deprecated_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="notice",
            field=models.TextField(
                blank=True, default="", help_text="Where people read about that."
            ),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="since",
            field=models.DateTimeField(
                default=django.utils.timezone.now, help_text="When it became the newest."
            ),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="sunset",
            field=models.DateTimeField(
                blank=True, help_text="When it is to be retired.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="modelversion",
            name="state",
            field=models.CharField(
                choices=[("live", "Live"), ("deprecated", "Deprecated"), ("retired", "Retired")],
                default="live",
                max_length=16,
            ),
        ),
        migrations.CreateModel(
            name="Contract",
            fields=[
                ("hash", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("endpoint", models.CharField(max_length=100)),
                ("version", models.PositiveIntegerField()),
                ("document", models.JSONField()),
                (
                    "breaks",
                    models.JSONField(
                        blank=True, default=list, help_text="What today's contract breaks of it."
                    ),
                ),
                ("is_current", models.BooleanField(default=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ["endpoint", "-version", "-created"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("is_current", True)),
                        fields=("endpoint", "version"),
                        name="one_current_contract_per_endpoint_version",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="VersionUse",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kid", models.CharField(max_length=10)),
                ("model", models.CharField(max_length=100)),
                ("number", models.PositiveIntegerField()),
                ("last_used_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["model", "number", "-last_used_at"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("model", "number", "kid"), name="one_row_per_key_and_version"
                    )
                ],
            },
        ),
    ]
