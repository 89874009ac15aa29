"""What versions a key means by none. Keys of before follow the newest, as they did."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("trust", "0004_roles"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="pin",
            field=models.CharField(blank=True, default="", max_length=40),
        ),
    ]
