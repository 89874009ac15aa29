"""What every ask of a front worker takes to the shards, made once for all of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dispatcher_site.gateway.routing_state import RoutingKeeper
from dispatcher_site.gateway.streams import Streams
from modeldefs.wire.deadlines import Deadlines


@dataclass(frozen=True, slots=True)
class Roads:
    """Who owns what, the way there, and what ends a call in time."""

    keeper: RoutingKeeper
    streams: Streams
    deadlines: Deadlines
    loop: asyncio.AbstractEventLoop
