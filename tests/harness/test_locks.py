"""Locks: shared by what may run together, exclusive for what must be alone, given up when their holder is done."""

from pathlib import Path

from harness.locks import alone, file_lock, is_locked


def test_a_shared_lock_is_held_by_several(tmp_path: Path):
    path = tmp_path / "lock"
    with file_lock(path, shared=True), file_lock(path, shared=True, waiting=lambda: 1 / 0):
        assert is_locked(path)  # for whoever wants it exclusively


def test_who_shares_a_lock_can_be_alone_for_a_while(tmp_path: Path):
    path = tmp_path / "lock"
    with file_lock(path, shared=True) as held:
        with alone(held):
            waited = []
            assert not taken(path, waited)
            assert waited
        assert taken(path, [])
    assert not is_locked(path)


def taken(path: Path, waited: list[bool]) -> bool:
    """Whether the shared lock can be had without waiting; never waits."""

    class WaitsError(Exception):
        pass

    def note() -> None:
        waited.append(True)
        raise WaitsError

    try:
        with file_lock(path, shared=True, waiting=note):
            return True
    except WaitsError:
        return False
