"""A node takes keys for a while only after its dispatcher last said that they are the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardnode.guard.keyring_age import FILE_NAME, KeyringAge

AGE_S_MAX = 60.0


class Clock:
    """A clock that stands until it is set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def _age(folder: Path, clock: Clock) -> KeyringAge:
    return KeyringAge(folder, age_s_max=AGE_S_MAX, clock=clock)


def test_keys_are_old_until_they_were_confirmed_and_when_that_is_long_ago(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Never confirmed is old; confirmed they are taken up to the age that is set and not a second
    longer, the log says so once for each time, and the next confirmation mends."""
    clock = Clock()
    age = _age(tmp_path, clock)
    told: list[bool] = []

    def look() -> None:
        age.look(3)
        told.append(age.is_old)

    look()
    age.confirm(3)
    clock.now += AGE_S_MAX
    look()
    clock.now += 1
    look()
    look()
    assert 2 == caplog.text.count("guard.keys-too-old")
    age.confirm(3)
    look()

    assert [True, False, True, True, False] == told


def test_workers_and_restarts_share_what_was_confirmed(tmp_path: Path) -> None:
    """What one worker heard all know, and one that starts later knows when it was, no better."""
    clock = Clock()
    _age(tmp_path, clock).confirm(3)
    clock.now += AGE_S_MAX / 2
    later = _age(tmp_path, clock)
    later.look(3)
    assert not later.is_old

    clock.now += AGE_S_MAX / 2 + 1
    restarted = _age(tmp_path, clock)
    restarted.look(3)
    assert restarted.is_old


def test_another_generation_is_not_what_was_confirmed(tmp_path: Path) -> None:
    """A keyring older than the confirmed one, as after a restored backup, is old; a newer one has
    come from the dispatcher since."""
    age = _age(tmp_path, Clock())
    age.confirm(3)
    told = {}
    for generation in (2, 3, 4):
        age.look(generation)
        told[generation] = age.is_old

    assert {2: True, 3: False, 4: False} == told


@pytest.mark.parametrize("text", ["", "{", "[]", '{"generation": 3}', '{"generation":3,"at":"x"}'])
def test_a_damaged_note_confirms_nothing(tmp_path: Path, text: str) -> None:
    """It is as if nothing had been heard."""
    (tmp_path / FILE_NAME).write_text(text)
    age = _age(tmp_path, Clock())
    age.look(3)

    assert age.is_old


def test_a_moment_far_ahead_proves_nothing(tmp_path: Path) -> None:
    """A clock that was set back makes a confirmation of the future: it would last too long."""
    clock = Clock()
    age = _age(tmp_path, clock)
    age.confirm(3)
    clock.now -= 3_600
    age.look(3)

    assert age.is_old
