"""Values that are valid for a time, in bounded room."""

from datetime import timedelta

from smtp_async.tls.expiring_cache import ExpiringCache
from tests.tls.revocation_lab import HOUR, NOW


def test_a_value_is_valid_for_its_time() -> None:
    cache: ExpiringCache[str] = ExpiringCache(10)
    moment = timedelta(seconds=1)
    cache.put("key", "value", NOW, NOW + HOUR)
    times = (NOW - moment, NOW, NOW + HOUR - moment, NOW + HOUR)
    assert [cache.get("key", now) for now in times] == [None, "value", "value", None]
    assert cache.get("other", NOW) is None


def test_there_is_room_for_so_many() -> None:
    cache: ExpiringCache[int] = ExpiringCache(2)
    for number in range(3):
        cache.put(number, number, NOW, NOW + HOUR)
    assert [cache.get(number, NOW) for number in range(3)] == [None, 1, 2]


def test_the_oldest_values_make_room() -> None:
    cache: ExpiringCache[bytes] = ExpiringCache(10, len)
    for key in "abc":
        cache.put(key, bytes(4), NOW, NOW + HOUR)
    assert [cache.get(key, NOW) is not None for key in "abc"] == [False, True, True]
    cache.put("b", bytes(6), NOW, NOW + HOUR)
    assert [cache.get(key, NOW) is not None for key in "abc"] == [False, True, True]
    cache.put("d", bytes(11), NOW, NOW + HOUR)
    assert [cache.get(key, NOW) for key in "abcd"] == [None] * 4
