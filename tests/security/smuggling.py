"""Requests that two servers could read differently, and what a strict one must answer.

Each has a complete insert hidden where the lax reading finds a second request. Sources: RFC 9112
sections 2.2, 3, 5, 6, 7 and 11.2; the desync families of CL.TE, TE.CL and TE.TE; advisories of
llhttp, gunicorn, waitress and others on bare LF, chunk extensions and doubtful lengths.
"""

from __future__ import annotations

from collections.abc import Callable

Vector = Callable[[bytes, bytes, bytes], bytes]  # target, credentials, what is hidden

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def _post(head: bytes, body: bytes = b"", *, version: bytes = b"HTTP/1.1") -> Vector:
    """Return a POST with these framing headers and this body, and the hidden request behind."""

    def make(target: bytes, who: bytes, hidden: bytes) -> bytes:
        length = b"%d" % (len(body) + len(hidden))
        line = b"POST " + target + b" " + version + b"\r\n"
        framing = head.replace(b"{length}", length)
        return line + HOST + who + JSON + framing + b"\r\n" + body + hidden

    return make


def _chunk(body: bytes) -> Vector:
    return _post(CHUNKED, body)


def _line(line: bytes, host: bytes = HOST) -> Vector:
    """Return a request with this request line; ``{target}`` in it is the path."""
    return lambda target, who, hidden: (
        line.replace(b"{target}", target) + host + who + b"\r\n" + hidden
    )


def _hosts(*hosts: bytes) -> Vector:
    return _line(b"GET {target} HTTP/1.1\r\n", b"".join(hosts))


LENGTHS: dict[str, Vector] = {
    "CL.TE": _post(b"Content-Length: {length}\r\n" + CHUNKED, b"0\r\n\r\n"),
    "TE.CL": _post(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"),
    "CL.CL conflicting": _post(b"Content-Length: 0\r\nContent-Length: {length}\r\n"),
    "CL.CL equal": _post(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"),
    "CL list": _post(b"Content-Length: 2, 2\r\n", b"{}"),
    "CL list conflicting": _post(b"Content-Length: 0, {length}\r\n"),
    "CL plus": _post(b"Content-Length: +2\r\n", b"{}"),
    "CL minus": _post(b"Content-Length: -1\r\n"),
    "CL minus zero": _post(b"Content-Length: -0\r\n"),
    "CL hex": _post(b"Content-Length: 0x2\r\n", b"{}"),
    "CL underscore": _post(b"Content-Length: 0_2\r\n", b"{}"),
    "CL decimal": _post(b"Content-Length: 2.0\r\n", b"{}"),
    "CL two words": _post(b"Content-Length: 2 2\r\n", b"{}"),
    "CL empty": _post(b"Content-Length:\r\n"),
    "CL Arabic digits": _post("Content-Length: ٢\r\n".encode(), b"{}"),
    "CL overflows 64 bits": _post(b"Content-Length: 18446744073709551618\r\n", b"{}"),
    "CL with a NUL": _post(b"Content-Length: 2\x00\r\n", b"{}"),
    "CL with a vertical tab": _post(b"Content-Length: \x0b2\r\n", b"{}"),
    "CL space before colon": _post(b"Content-Length : {length}\r\n"),
    "CL tab before colon": _post(b"Content-Length\t: {length}\r\n"),
    "CL folded": _post(b"Content-Length:\r\n 2\r\n", b"{}"),
    "CL as CL_": _post(b"Content-Length: 0\r\nContent_Length: {length}\r\n"),
}

ENCODINGS: dict[str, Vector] = {
    name: _post(b"Content-Length: 5\r\n" + lines, b"0\r\n\r\n")
    for name, lines in {
        "TE unknown": b"Transfer-Encoding: xchunked\r\n",
        "TE identity": b"Transfer-Encoding: identity\r\n",
        "TE chunked, identity": b"Transfer-Encoding: chunked, identity\r\n",
        "TE identity, chunked": b"Transfer-Encoding: identity, chunked\r\n",
        "TE chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
        "TE two lines": CHUNKED + b"Transfer-Encoding: identity\r\n",
        "TE two lines, other order": b"Transfer-Encoding: identity\r\n" + CHUNKED,
        "TE quoted": b'Transfer-Encoding: "chunked"\r\n',
        "TE with a parameter": b"Transfer-Encoding: chunked;q=1\r\n",
        "TE with a comma": b"Transfer-Encoding: ,chunked\r\n",
        "TE with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
        "TE with a NUL": b"Transfer-Encoding: chunked\x00\r\n",
        "TE with a CR": b"Transfer-Encoding: chunked\r \r\n",
        "TE empty": b"Transfer-Encoding:\r\n",
        "TE space before colon": b"Transfer-Encoding : chunked\r\n",
        "TE leading space": b" Transfer-Encoding: chunked\r\n",
        "TE folded": b"Transfer-Encoding:\r\n chunked\r\n",
        "TE behind a bare LF": b"X: y\nTransfer-Encoding: chunked\r\n",
        "TE behind a bare CR": b"X: y\rTransfer-Encoding: chunked\r\n",
        "TE underscore": b"Transfer_Encoding: chunked\r\n",
        "TE with a byte in its name": b"Transfer-Encoding\xff: chunked\r\n",
        "TE behind a NUL": b"\x00Transfer-Encoding: chunked\r\n",
    }.items()
}
ENCODINGS |= {
    "TE alone unknown": _post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "TE alone not last": _post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"),
    "TE gzip, chunked": _post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "TE in 1.0": _post(CHUNKED, b"0\r\n\r\n", version=b"HTTP/1.0"),
}

CHUNKS: dict[str, Vector] = {
    "size with a bare LF": _chunk(b"2\n{}\r\n0\r\n\r\n"),
    "bare LF in an extension": _chunk(b"2;x\n{}\r\n0\r\n\r\n"),
    "bare LF in an extension's value": _chunk(b"2;x=y\n{}\r\n0\r\n\r\n"),
    "bare LF in a quoted extension": _chunk(b'2;x="\n"\r\n{}\r\n0\r\n\r\n'),
    "bare CR in an extension": _chunk(b"2;x\ry\r\n{}\r\n0\r\n\r\n"),
    "NUL in an extension": _chunk(b"2;x\x00\r\n{}\r\n0\r\n\r\n"),
    "size overflows": _chunk(b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    "size of 17 digits": _chunk(b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n"),
    "size negative": _chunk(b"-2\r\n{}\r\n0\r\n\r\n"),
    "size plus": _chunk(b"+2\r\n{}\r\n0\r\n\r\n"),
    "size 0x": _chunk(b"0x2\r\n{}\r\n0\r\n\r\n"),
    "size with an underscore": _chunk(b"0_2\r\n{}\r\n0\r\n\r\n"),
    "size empty": _chunk(b"\r\n{}\r\n0\r\n\r\n"),
    "size with a leading space": _chunk(b" 2\r\n{}\r\n0\r\n\r\n"),
    "size is no number": _chunk(b"zz\r\n{}\r\n0\r\n\r\n"),
    "data longer than its size": _chunk(b"2\r\n{}{}\r\n0\r\n\r\n"),
    "data shorter than its size": _chunk(b"5\r\n{}\r\n0\r\n\r\n"),
    "data ended by a bare LF": _chunk(b"2\r\n{}\n0\r\n\r\n"),
    "data ended by a bare CR": _chunk(b"2\r\n{}\r0\r\n\r\n"),
    "last chunk with a bare LF": _chunk(b"2\r\n{}\r\n0\n\n"),
    "trailer without colon": _chunk(b"2\r\n{}\r\n0\r\nnonsense\r\n\r\n"),
    "trailer with a bare LF": _chunk(b"2\r\n{}\r\n0\r\nX: y\nZ: w\r\n\r\n"),
    "trailer with a length": _chunk(b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n"),
    "trailer with an encoding": _chunk(b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
}

HEADERS: dict[str, Vector] = {
    name: _line(b"GET {target} HTTP/1.1\r\n", HOST + line)
    for name, line in {
        "folded": b"X: a\r\n b\r\n",
        "folded with a tab": b"X: a\r\n\tb\r\n",
        "space before colon": b"X : a\r\n",
        "space in a name": b"X Y: a\r\n",
        "no colon": b"nonsense\r\n",
        "empty name": b": a\r\n",
        "NUL in a value": b"X: a\x00b\r\n",
        "CR in a value": b"X: a\rb\r\n",
        "bare LF in a value": b"X: a\nb: c\r\n",
        "NUL in a name": b"X\x00Y: a\r\n",
        "control character in a name": b"X\x01: a\r\n",
        "UTF-8 in a name": "é: a\r\n".encode(),
        "key with an underscore": b"X_Api_Key: spk_live_x\r\n",
        "unknown expectation": b"Expect: everything\r\n",
    }.items()
}

HOSTS: dict[str, Vector] = {
    "no Host": _hosts(),
    "two Hosts": _hosts(HOST, b"Host: other.example\r\n"),
    "two equal Hosts": _hosts(HOST, HOST),
    "empty Host": _hosts(b"Host:\r\n"),
    "Host list": _hosts(b"Host: localhost, other.example\r\n"),
    "Host with a path": _hosts(b"Host: localhost/x\r\n"),
    "Host with a user": _hosts(b"Host: a@localhost\r\n"),
    "Host with a space": _hosts(b"Host: localhost x\r\n"),
    "Host folded": _hosts(b"Host:\r\n localhost\r\n"),
    "space before Host": _hosts(b" Host: localhost\r\n"),
    "another host in the target": _line(b"GET http://other.example{target} HTTP/1.1\r\n"),
    "another port in the target": _line(b"GET http://localhost:81{target} HTTP/1.1\r\n"),
    "a user in the target": _line(b"GET http://a@localhost{target} HTTP/1.1\r\n"),
    "another scheme in the target": _line(b"GET file://localhost{target} HTTP/1.1\r\n"),
}

LINES: dict[str, Vector] = {
    name: _line(line)
    for name, line in {
        "a tab": b"GET\t{target}\tHTTP/1.1\r\n",
        "leading space": b" GET {target} HTTP/1.1\r\n",
        "trailing word": b"GET {target} HTTP/1.1 x\r\n",
        "space in the target": b"GET {target}?a=b c HTTP/1.1\r\n",
        "bare LF": b"GET {target} HTTP/1.1\n",
        "bare CR": b"GET {target} HTTP/1.1\rX: y\r\n",
        "NUL in the target": b"GET {target}\x00 HTTP/1.1\r\n",
        "raw UTF-8 in the target": "GET {target}?a=é HTTP/1.1\r\n".encode(),
        "fragment": b"GET {target}#x HTTP/1.1\r\n",
        "target without a slash": b"GET x{target} HTTP/1.1\r\n",
        "no version": b"GET {target}\r\n",
        "version 0.9": b"GET {target} HTTP/0.9\r\n",
        "version 1.2": b"GET {target} HTTP/1.2\r\n",
        "version 1.10": b"GET {target} HTTP/1.10\r\n",
        "version 2.0": b"GET {target} HTTP/2.0\r\n",
        "version in lower case": b"GET {target} http/1.1\r\n",
        "method in lower case": b"get {target} HTTP/1.1\r\n",
        "unknown method": b"SMUGGLE {target} HTTP/1.1\r\n",
        "tunnel": b"CONNECT localhost:80 HTTP/1.1\r\n",
        "preface of version 2": b"PRI * HTTP/2.0\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    }.items()
}
LINES |= {
    "body behind an upgrade": _post(
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: {length}\r\n"
    ),
    "chunks behind an upgrade": _post(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + CHUNKED, b"0\r\n\r\n"
    ),
}

CORPUS: dict[str, Vector] = {
    f"{kind}: {name}": vector
    for kind, vectors in {
        "length": LENGTHS,
        "encoding": ENCODINGS,
        "chunk": CHUNKS,
        "header": HEADERS,
        "host": HOSTS,
        "line": LINES,
    }.items()
    for name, vector in vectors.items()
}
