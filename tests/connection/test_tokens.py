"""tokens.py: one call of a provider for all who wait, in time, and again after a refusal."""

import asyncio
from typing import Any

import pytest

from smtp_async import Secret, Token
from smtp_async.connection.tokens import TokenCache
from smtp_async.errors import InvalidArgument, TokenRefused, TokenUnavailable
from tests.lab import every_loop, gathered, turns

pytestmark = pytest.mark.usefixtures("no_leaks")


class Provider:
    """Returns "t1", "t2" and so on, when `gate` is open."""

    def __init__(self, *, expires_at: float | None = None, error: BaseException | None = None) -> None:
        self.calls = 0
        self.running = 0
        self.most = 0
        self.expires_at = expires_at
        self.error = error
        self.gate = asyncio.Event()
        self.gate.set()
        self.slow_to_end = False

    async def __call__(self) -> Token:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            if self.slow_to_end:
                await turns()
            raise
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return Token(f"t{self.calls}", self.expires_at)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def text(cache: TokenCache, provider: Any) -> str:
    return (await cache.get(provider)).reveal()


@every_loop
async def test_one_call_for_all_who_wait() -> None:
    cache, provider = TokenCache(), Provider()
    provider.gate.clear()
    waiting = [asyncio.create_task(text(cache, provider)) for _ in range(10)]
    await turns()
    provider.gate.set()
    assert await gathered(*waiting) == ["t1"] * 10
    assert await text(cache, provider) == "t1"
    assert provider.calls == 1


async def test_each_provider_has_its_own() -> None:
    cache, one, two = TokenCache(), Provider(), Provider()
    await text(cache, two)
    cache.refused(two, Secret("t1"))
    assert (await text(cache, one), await text(cache, two)) == ("t1", "t2")


async def test_equal_providers_are_one() -> None:
    """A bound method is a new object each time, and an object need not be hashable."""

    class Account:
        __hash__ = None  # type: ignore[assignment]
        calls = 0

        def __eq__(self, other: object) -> bool:
            return True

        async def __call__(self) -> Token:
            self.calls += 1
            return Token(f"t{self.calls}")

        async def fetch(self) -> Token:
            return await self()

    cache, account = TokenCache(), Account()
    assert [await text(cache, account.fetch) for _ in range(3)] == ["t1"] * 3
    other = Account()
    assert [await text(cache, one) for one in (other, account, other)] == ["t1", "t2", "t1"]


async def test_only_so_many_are_kept() -> None:
    cache = TokenCache()
    providers = [Provider() for _ in range(100)]
    for _ in range(2):
        for one in providers:
            await text(cache, one)
        await text(cache, providers[-1])
    assert providers[0].calls == 2
    assert len(cache._entries) == 64


class TestExpiry:
    async def test_it_is_renewed_before_it_expires(self) -> None:
        clock = Clock()
        cache, provider = TokenCache(clock), Provider(expires_at=4600.0)
        assert await text(cache, provider) == "t1"
        clock.now = 4539.9
        assert await text(cache, provider) == "t1"
        clock.now = 4540.0
        provider.expires_at = None
        assert await text(cache, provider) == "t2"
        clock.now = 1e9
        assert await text(cache, provider) == "t2"

    async def test_a_short_life_is_used(self) -> None:
        clock = Clock()
        cache, provider = TokenCache(clock), Provider(expires_at=1010.0)
        await text(cache, provider)
        clock.now = 1008.9
        assert await text(cache, provider) == "t1"
        clock.now = 1009.1
        assert await text(cache, provider) == "t2"

    async def test_one_that_has_expired_already_is_tried_once(self) -> None:
        clock = Clock()
        cache, provider = TokenCache(clock), Provider(expires_at=900.0)
        assert (await text(cache, provider), await text(cache, provider)) == ("t1", "t2")


class TestRefusal:
    async def test_the_next_call_asks_again(self) -> None:
        cache, provider = TokenCache(), Provider()
        first = await cache.get(provider)
        cache.refused(provider, first)
        assert await text(cache, provider) == "t2"

    async def test_an_older_token_does_not_take_a_newer_one_along(self) -> None:
        """Ten connections had the old one, and hear of it one after the other."""
        cache, provider = TokenCache(), Provider()
        first = await cache.get(provider)
        for _ in range(10):
            cache.refused(provider, first)
            assert await text(cache, provider) == "t2"
        cache.refused(Provider(), first)

    async def test_refused_while_others_wait(self) -> None:
        cache, provider = TokenCache(), Provider()
        provider.gate.clear()
        waiting = [asyncio.create_task(text(cache, provider)) for _ in range(3)]
        await turns()
        provider.gate.set()
        await asyncio.wait({waiting[0]})
        cache.refused(provider, Secret("t1"))
        assert await gathered(*waiting) == ["t1"] * 3
        assert await text(cache, provider) == "t2"


class TestErrors:
    @pytest.mark.parametrize("error", [TokenRefused("no"), TokenUnavailable("down"), InvalidArgument("odd")])
    async def test_the_providers_own(self, error: Any) -> None:
        cache, provider = TokenCache(), Provider(error=error)
        found = await gathered(*(cache.get(provider) for _ in range(3)))
        assert [type(one) for one in found] == [type(error)] * 3
        assert len({id(one) for one in found}) == 3
        assert all(one.stage == "AUTH" for one in found)
        assert provider.calls == 1
        provider.error = None
        assert await text(cache, provider) == "t2"

    async def test_any_other_is_told_without_its_frames(self) -> None:
        cache, provider = TokenCache(), Provider(error=KeyError("access_token\x1b"))
        with pytest.raises(TokenUnavailable, match=r"KeyError: 'access_token\\x1b'|KeyError") as caught:
            await cache.get(provider)
        assert caught.value.temporary
        assert caught.value.__cause__ is None and caught.value.__context__ is None

    @pytest.mark.parametrize("found", [None, "t1", {"access_token": "t1"}])
    async def test_something_that_is_no_token(self, found: Any) -> None:
        async def provider() -> Token:
            token: Token = found
            return token

        with pytest.raises(TokenUnavailable, match="not a Token") as caught:
            await TokenCache().get(provider)
        assert "t1" not in str(caught.value)

    async def test_a_provider_that_cancels_itself(self) -> None:
        with pytest.raises(TokenUnavailable, match="cancelled"):
            await TokenCache().get(Provider(error=asyncio.CancelledError()))


class TestCancelling:
    @every_loop
    async def test_others_still_get_their_token(self) -> None:
        cache, provider = TokenCache(), Provider()
        provider.gate.clear()
        waiting = [asyncio.create_task(text(cache, provider)) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        await turns()
        provider.gate.set()
        found = await gathered(*waiting)
        assert isinstance(found[0], asyncio.CancelledError)
        assert found[1:] == ["t1", "t1"]
        assert provider.calls == 1

    @every_loop
    async def test_the_last_one_takes_the_call_along(self) -> None:
        cache, provider = TokenCache(), Provider()
        provider.gate.clear()
        waiting = [asyncio.create_task(text(cache, provider)) for _ in range(2)]
        await turns()
        for one in waiting:
            one.cancel()
        await gathered(*waiting)
        await turns()
        assert provider.running == 0
        provider.gate.set()
        assert await text(cache, provider) == "t2"

    async def test_a_call_that_is_ending_is_waited_for(self) -> None:
        """Providers are never called twice at the same time."""
        cache, provider = TokenCache(), Provider()
        provider.slow_to_end = True
        provider.gate.clear()
        first = asyncio.create_task(text(cache, provider))
        await turns()
        first.cancel()
        await turns(2)
        assert provider.running == 1
        provider.gate.set()
        assert await text(cache, provider) == "t2"
        assert provider.most == 1
