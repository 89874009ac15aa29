"""Who may ask for enrolment at all: a program, never a web page that somebody has open.

A page can make a browser on this machine send requests to loopback, and by a name that resolves
to loopback even read the answers. Browsers say so in headers that no script can take away, cannot
send JSON elsewhere without asking first, and name the host that the page came from.
"""

from __future__ import annotations

from collections.abc import Mapping

from modeldefs.wire.enrolment import is_loopback
from modeldefs.wire.problems import Forbidden, UnsupportedMediaType

JSON_TYPE = "application/json"
BROWSER_HEADERS = ("Origin", "Sec-Fetch-Site")
PROXY_HEADERS = ("X-Forwarded-For", "Forwarded")


def check_json_type(content_type: str) -> None:
    """Refuse a body that does not call itself JSON.

    Raises:
        UnsupportedMediaType: It is called something else, or nothing.
    """
    if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        raise UnsupportedMediaType(f"A body here is {JSON_TYPE}.")


def check_enrolling_caller(headers: Mapping[str, str], *, has_join_token: bool) -> None:
    """Refuse what a browser or a proxy sends.

    Args:
        headers: Looked up by their usual names; the mapping ignores case.
        has_join_token: Whether enrolment needs a token here, so that the place proves nothing.

    Raises:
        Forbidden: A page asks, or without a token one who may not be on this machine.
    """
    if any(name in headers for name in BROWSER_HEADERS):
        raise Forbidden("Enrolment is not for browsers.")
    if has_join_token:
        return
    if any(name in headers for name in PROXY_HEADERS):
        raise Forbidden("Without a join token this node is not enrolled through a proxy.")
    if not names_this_machine(headers.get("Host", "")):
        raise Forbidden(
            "Without a join token this node is enrolled as localhost or by a loopback address: "
            "register it as 127.0.0.1:PORT, or set SHARDPOINT_JOIN_TOKEN on both sides."
        )


def names_this_machine(host: str) -> bool:
    """Return whether a Host header is ``localhost`` or a loopback address, with or without port.

    Any other name may be one that an attacker's name server sends here.
    """
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, ""
    if colon and not host.endswith("]") and not (port.isascii() and port.isdigit()):
        return False
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
        return ":" in name and is_loopback(name)
    return name.lower() == "localhost" or (":" not in name and bool(name) and is_loopback(name))
