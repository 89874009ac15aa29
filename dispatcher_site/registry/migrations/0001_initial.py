"""Create the registry tables."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the tables."""

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Counter",
            fields=[
                ("name", models.TextField(primary_key=True, serialize=False)),
                ("value", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="MapEpoch",
            fields=[
                ("epoch", models.BigIntegerField(primary_key=True, serialize=False)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("reason", models.TextField(blank=True, default="")),
                ("actor", models.TextField(blank=True, default="")),
            ],
            options={
                "ordering": ["-epoch"],
            },
        ),
        migrations.CreateModel(
            name="ModelDefinition",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("package", models.TextField()),
                ("shard_key", models.TextField(blank=True, default="")),
                ("reference", models.BooleanField(default=False)),
                ("head", models.PositiveIntegerField(default=1)),
                ("active", models.BooleanField(default=True)),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Shard",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.SlugField(max_length=63, unique=True)),
                ("alias", models.SlugField(max_length=63, unique=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("joining", "Joining"),
                            ("active", "Active"),
                            ("draining", "Draining"),
                            ("quarantined", "Quarantined"),
                            ("down", "Down"),
                            ("removed", "Removed"),
                        ],
                        default="joining",
                        max_length=16,
                    ),
                ),
                ("state_reason", models.TextField(blank=True, default="")),
                ("public_key", models.TextField()),
                ("fingerprint", models.CharField(max_length=128)),
                ("instance", models.UUIDField()),
                ("system_identifier", models.TextField(blank=True, default="")),
                ("bundle_seen", models.TextField(blank=True, default="")),
                ("map_epoch_seen", models.BigIntegerField(default=0)),
                ("keyring_generation_seen", models.BigIntegerField(default=0)),
                ("checks_missed", models.PositiveIntegerField(default=0)),
                ("last_seen", models.DateTimeField(blank=True, null=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Job",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(max_length=40)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("planned", "Planned"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="planned",
                        max_length=16,
                    ),
                ),
                ("payload", models.JSONField(blank=True, default=dict)),
                ("progress", models.BigIntegerField(default=0)),
                ("total", models.BigIntegerField(default=0)),
                ("error", models.TextField(blank=True, default="")),
                ("log", models.TextField(blank=True, default="")),
                ("cancel_requested", models.BooleanField(default=False)),
                ("lease_owner", models.TextField(blank=True, default="")),
                ("lease_until", models.DateTimeField(blank=True, null=True)),
                ("run_after", models.DateTimeField(blank=True, null=True)),
                ("created_by", models.TextField(blank=True, default="")),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("finished", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state__in", ["planned", "running"])),
                        fields=["lease_until"],
                        name="jobs_to_carry_on",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Endpoint",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("number", models.PositiveIntegerField()),
                ("kind", models.CharField(max_length=16)),
                ("classification", models.JSONField(blank=True, default=dict)),
                ("methods", models.JSONField(default=list)),
                ("doc", models.TextField(blank=True, default="")),
                ("bundle", models.CharField(max_length=64)),
                ("active", models.BooleanField(default=True)),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="endpoints",
                        to="registry.modeldefinition",
                    ),
                ),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("task", models.CharField(max_length=100)),
                ("payload", models.JSONField(default=dict)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("sent", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ["id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("sent__isnull", True)),
                        fields=["id"],
                        name="outbox_to_send",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="JobStep",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveIntegerField()),
                ("name", models.CharField(max_length=200)),
                ("shard", models.CharField(blank=True, default="", max_length=63)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                        ],
                        default="pending",
                        max_length=16,
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("detail", models.JSONField(blank=True, default=dict)),
                ("error", models.TextField(blank=True, default="")),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="steps",
                        to="registry.job",
                    ),
                ),
            ],
            options={
                "ordering": ["job", "position"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("job", "position"), name="one_step_per_position"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ModelVersion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.PositiveIntegerField()),
                ("schema_hash", models.CharField(max_length=64)),
                ("state", models.CharField(default="live", max_length=16)),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="versions",
                        to="registry.modeldefinition",
                    ),
                ),
            ],
            options={
                "ordering": ["model", "-number"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("model", "number"), name="one_row_per_model_version"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="BucketRange",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("first", models.PositiveIntegerField()),
                ("last", models.PositiveIntegerField()),
                (
                    "since",
                    models.BigIntegerField(
                        help_text="The epoch that gave these buckets to this shard."
                    ),
                ),
                (
                    "epoch",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="ranges",
                        to="registry.mapepoch",
                    ),
                ),
                (
                    "shard",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="ranges",
                        to="registry.shard",
                    ),
                ),
            ],
            options={
                "ordering": ["-epoch", "first"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("epoch", "first"), name="one_range_per_first_bucket"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("first__lte", models.F("last")), ("last__lt", 16384)),
                        name="range_lies_in_the_keyspace",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ShardNode",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[("primary", "Primary"), ("replica", "Replica")],
                        default="primary",
                        max_length=8,
                    ),
                ),
                ("host", models.CharField(max_length=253)),
                ("port", models.PositiveIntegerField()),
                (
                    "shard",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="nodes",
                        to="registry.shard",
                    ),
                ),
            ],
            options={
                "ordering": ["shard", "role", "host", "port"],
                "constraints": [
                    models.UniqueConstraint(fields=("host", "port"), name="one_node_per_address"),
                    models.UniqueConstraint(
                        condition=models.Q(("role", "primary")),
                        fields=("shard",),
                        name="one_primary_per_shard",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("port__gte", 1), ("port__lte", 65535)),
                        name="node_port_is_a_port",
                    ),
                ],
            },
        ),
    ]
