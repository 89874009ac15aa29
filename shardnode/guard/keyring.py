"""Keys that a node accepts: those its dispatcher sealed for it, or its own while it is alone.

Invariant: what is stored is sealed or hashed; an opened keyring lives in memory only. A node that
has a dispatcher forgets its own key; without a keyring it lets nobody in.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from engine.run_dir import write_private
from modeldefs.wire.keys import KeyEntry, Keyring, digest, mint_key

STANDALONE_FILE = "standalone.json"
STANDALONE_OWNER = "standalone"


def ensure_standalone_key(folder: Path) -> str | None:
    """Make the node's own key on the first call and return its text; None if it was made before.

    Only its hash is kept: the text cannot be shown again, ``renew_standalone_key`` replaces it.
    """
    if (folder / STANDALONE_FILE).exists():
        return None
    return renew_standalone_key(folder)


def renew_standalone_key(folder: Path) -> str:
    """Replace the node's own key and return the new one's text."""
    minted = mint_key("spk_live_")
    pepper = secrets.token_bytes(32)
    entry = KeyEntry(
        kid=minted.kid,
        digest=digest(pepper, minted.secret),
        owner=STANDALONE_OWNER,
        scopes=("*",),
    )
    write_private(folder / STANDALONE_FILE, Keyring([entry], {1: pepper}).encode().decode() + "\n")
    return minted.text


def read_standalone_keyring(folder: Path) -> Keyring:
    """Return the keyring of a node that is alone; empty when it has no key."""
    path = folder / STANDALONE_FILE
    try:
        return Keyring.decode(path.read_bytes())
    except FileNotFoundError:
        return Keyring()
