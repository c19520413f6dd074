"""Ids of streams: which are new, which are skipped, and which were reset."""

import pytest

from tinyasgi.protocols.http2.frames import ConnectionFault, ErrorCode, StreamFault
from tinyasgi.protocols.http2.ids import MAX_GAPS, MAX_RESETS, StreamIds


@pytest.fixture
def ids() -> StreamIds:
    return StreamIds()


def use(ids: StreamIds, *stream_ids: int) -> None:
    for stream_id in stream_ids:
        assert ids.begin(stream_id, is_refused=False)


def test_ids_that_are_used(ids: StreamIds) -> None:
    assert ids.last == 0
    use(ids, 1, 3, 5)
    assert ids.last == 5
    for stream_id in (1, 3, 5):
        assert not ids.begin(stream_id, is_refused=False)  # it has ended
        ids.check_used(stream_id)
    with pytest.raises(ConnectionFault):
        ids.check_used(7)
    with pytest.raises(ConnectionFault):
        ids.check_used(4)


def test_refused_streams_are_not_the_last(ids: StreamIds) -> None:
    use(ids, 1)
    assert ids.begin(3, is_refused=True)
    assert ids.last == 1
    assert not ids.begin(3, is_refused=True)


def test_skipped_ids_are_invalid(ids: StreamIds) -> None:
    use(ids, 3, 9)
    for skipped in (1, 5, 7):
        with pytest.raises(ConnectionFault):
            ids.begin(skipped, is_refused=False)
    for used in (3, 9):
        assert not ids.begin(used, is_refused=False)
    use(ids, 11)


def test_skipped_ids_are_forgotten(ids: StreamIds) -> None:
    use(ids, *range(3, 3 + 4 * (MAX_GAPS + 1), 4))
    assert not ids.begin(1, is_refused=False)
    for gap in range(MAX_GAPS):
        with pytest.raises(ConnectionFault):
            ids.begin(5 + 4 * gap, is_refused=False)


@pytest.mark.parametrize("by_server", [True, False])
def test_late_frames(ids: StreamIds, by_server: bool) -> None:
    use(ids, 1, 3)
    ids.on_reset(3, by_server)
    assert ids.was_reset(3) is by_server
    assert ids.was_reset(1) is False
    if by_server:
        ids.check_late(3)
    else:
        with pytest.raises(StreamFault) as fault:
            ids.check_late(3)
        assert fault.value.code is ErrorCode.STREAM_CLOSED
    with pytest.raises(ConnectionFault) as closed:
        ids.check_late(1)
    assert closed.value.code is ErrorCode.STREAM_CLOSED


def test_late_frames_of_refused_streams(ids: StreamIds) -> None:
    use(ids, 1)
    ids.begin(3, is_refused=True)
    ids.check_late(3)
    with pytest.raises(ConnectionFault):
        ids.check_late(5)


def test_resets_are_forgotten(ids: StreamIds) -> None:
    for number in range(MAX_RESETS + 1):
        ids.begin(2 * number + 1, is_refused=False)
        ids.on_reset(2 * number + 1, by_server=True)
    assert not ids.was_reset(1)
    assert all(ids.was_reset(2 * number + 1) for number in range(1, MAX_RESETS + 1))
