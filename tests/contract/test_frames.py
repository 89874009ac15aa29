"""The bytes of frames, records and signatures, as every release of both ends writes them."""

from __future__ import annotations

from modeldefs.wire.frames import (
    NO_BUCKET,
    AnswerRecord,
    FrameWriter,
    RequestRecord,
    pack_answer,
    pack_request,
)
from modeldefs.wire.handshake import StreamIdentity, upgrade_request
from modeldefs.wire.signing import sign_request, sign_response

KEY = bytes(range(32))


def test_records_are_these_bytes() -> None:
    """A record's fields stand where they always stood, little-endian, without padding."""
    request = RequestRecord(0x01020304, 0x0506, 0x0708, 2000, 2**40 + 1, NO_BUCKET, b"body")
    answer = AnswerRecord(0x01020304, 404, b"body")

    assert pack_request(request).hex() == (
        "0403020106050807d00700000100000000010000ffff04000000626f6479"
    )
    assert pack_answer(answer).hex() == "04030201940104000000626f6479"


def test_frames_are_these_bytes() -> None:
    """Length, MAC over (sequence from 1, payload), payload."""
    writer = FrameWriter(KEY)

    assert (
        writer.frame(b"payload").hex() == "0700000033499638309bc9a1e271b351ae82dd647061796c6f6164"
    )
    assert (
        writer.frame(b"payload").hex() == "07000000146df275acb2754b89ec9fe49c96a6787061796c6f6164"
    )


def test_an_upgrade_request_is_these_bytes() -> None:
    """The request for a stream and its MAC."""
    identity = StreamIdentity(dispatcher="d1", shard="alpha", bundle="b1", pair_key=KEY)
    lines = upgrade_request(identity, host="h:1", nonce=bytes(16), now=1_700_000_000.9)

    assert lines.decode().split("\r\n") == [
        "GET /_stream HTTP/1.1",
        "Host: h:1",
        "Connection: Upgrade",
        "Upgrade: shardpoint/1",
        "Shardpoint-Dispatcher: d1",
        "Shardpoint-Shard: alpha",
        "Shardpoint-Bundle: b1",
        "Shardpoint-Nonce: 00000000000000000000000000000000",
        "Shardpoint-Created: 1700000000",
        "Shardpoint-Mac: 9d28662139f89704bd346fe7cb2bb8c2f131240824f98eacaac8f6b4bf3e26ce",
        "",
        "",
    ]


def test_control_signatures_are_these() -> None:
    """The MACs of a control request and of its answer."""
    headers = sign_request(
        pair_key=KEY,
        key_id="d1",
        shard="alpha",
        method="PUT",
        target="/_node/map?a=b",
        body=b"{}",
        now=1_700_000_000.9,
        nonce=bytes(16),
    )
    answer = sign_response(
        pair_key=KEY, status=200, body=b"{}", request_mac=headers["Shardpoint-Mac"]
    )

    assert headers == {
        "Shardpoint-Key-Id": "d1",
        "Shardpoint-Created": "1700000000",
        "Shardpoint-Nonce": "00000000000000000000000000000000",
        "Shardpoint-Mac": "05ce147725eb620ffe0c9127e02fbce5c5e131b955794138598ce58e15bf8c63",
    }
    assert answer == {
        "Shardpoint-Mac": "9ca3df97ad9e6f2c29285b35c057400be88c2d7a357c3b035bb5eb5194edf211"
    }
