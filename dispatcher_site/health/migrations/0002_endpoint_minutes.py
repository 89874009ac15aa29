"""Keep what each endpoint did in each minute."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the tables of the minutes."""

    dependencies = [
        ("health", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="MeterSource",
            fields=[
                ("source", models.CharField(max_length=80, primary_key=True, serialize=False)),
                ("at", models.DateTimeField()),
                ("totals", models.JSONField(default=dict)),
            ],
        ),
        migrations.CreateModel(
            name="EndpointMinute",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("site", models.CharField(max_length=63)),
                ("endpoint", models.CharField(max_length=100)),
                ("minute", models.DateTimeField()),
                ("requests", models.BigIntegerField(default=0)),
                ("errors", models.BigIntegerField(default=0)),
                ("shards_asked", models.BigIntegerField(default=0)),
                ("partials", models.BigIntegerField(default=0)),
                ("rows", models.BigIntegerField(default=0)),
                ("bytes_out", models.BigIntegerField(default=0)),
                ("p50_ms", models.FloatField(default=0)),
                ("p95_ms", models.FloatField(default=0)),
                ("p99_ms", models.FloatField(default=0)),
                ("buckets", models.JSONField(default=list)),
            ],
            options={
                "ordering": ["-minute", "site", "endpoint"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("minute", "site", "endpoint"),
                        name="one_row_per_endpoint_and_minute",
                    )
                ],
            },
        ),
    ]
