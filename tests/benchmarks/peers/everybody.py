"""All peers, in the order of the report; who cannot run is left out, and it is said why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tests.benchmarks.contenders import Contender
from tests.benchmarks.grounds import Grounds
from tests.benchmarks.peers.places import PeerMissing, PeerPlaces
from tests.benchmarks.peers.plproxy import plproxy_peer
from tests.benchmarks.peers.pocketbase import pocketbase_peer
from tests.benchmarks.peers.postgraphile import postgraphile_peer
from tests.benchmarks.peers.python_peers import django_peers, fastapi_peer
from tests.benchmarks.rounds import say

Started = contextlib.AbstractContextManager[list[Contender]]
PEERS: dict[str, Callable[[Grounds, PeerPlaces], Started]] = {
    "Django (DRF and ninja)": django_peers,
    "FastAPI": fastapi_peer,
    "PocketBase": pocketbase_peer,
    "PostGraphile": postgraphile_peer,
    "PL/Proxy": plproxy_peer,
}


@contextlib.contextmanager
def peers_running(
    grounds: Grounds, places: PeerPlaces, note: Callable[[str], None]
) -> Iterator[list[Contender]]:
    """Run every peer that can be run here."""
    with contextlib.ExitStack() as stack:
        found: list[Contender] = []
        for name, start in PEERS.items():
            say(f"starting {name}")
            try:
                found += stack.enter_context(start(grounds, places))
            except PeerMissing as missing:
                note(f"{name} was left out: {missing}")
        yield found
