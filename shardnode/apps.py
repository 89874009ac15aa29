"""The node's Django application: holds the one node of this process."""

from __future__ import annotations

from functools import cached_property

from django.apps import AppConfig, apps
from django.conf import settings

from shardnode.node import Node, open_node


class NoNodeHere(RuntimeError):
    """This process serves no shard: SHARDPOINT_NODE_CONFIG names no node.json."""


class ShardnodeConfig(AppConfig):
    """Opens the node on first use, so that it happens in the worker and not before its fork."""

    name = "shardnode"

    @cached_property
    def node(self) -> Node:
        """The node this process serves."""
        config = getattr(settings, "NODE_CONFIG", None)
        if config is None:
            raise NoNodeHere(NoNodeHere.__doc__)
        return open_node(
            config,
            join_token=getattr(settings, "JOIN_TOKEN", ""),
            keys_age_s_max=settings.SHARDPOINT_TUNING.keys_age_s_max,
        )


def current_node() -> Node:
    """Return the node of this process, opened on the first call."""
    config = apps.get_app_config("shardnode")
    if not isinstance(config, ShardnodeConfig):
        raise TypeError("shardnode is not installed through ShardnodeConfig")
    return config.node
