"""The system's certificates are read once per process, and again when they have changed."""

import asyncio
import gc
import multiprocessing
import os
import ssl
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from smtp_async import Security, TLSOptions, TrustOptions
from smtp_async.tls import make_context
from smtp_async.tls.system import shared_contexts
from tests.lab import client_of, mail, tls_server
from tests.servers.pki import Pki

ALONE = TLSOptions(trust=TrustOptions(shared_system_store=False))
BOTH = pytest.mark.parametrize("verify", [True, False])


@pytest.fixture(autouse=True)
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A process that has read nothing yet; how often certificates are read."""
    count: list[int] = []
    load = ssl.SSLContext.load_default_certs

    def counted(context: ssl.SSLContext, *args: Any) -> None:
        count.append(1)
        load(context, *args)

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", counted)
    shared_contexts.clear()
    return count


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system with one authority in a file, and an empty folder."""
    path = tmp_path / "system.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "folder"))
    return path


@BOTH
def test_the_process_reads_once(store: Path, readings: list[int], verify: bool) -> None:
    first = make_context(TLSOptions(), verify=verify)
    assert make_context(TLSOptions(server_hostname="mx.example"), verify=verify) is first
    assert len(readings) == 1
    # The one that verifies nothing in the handshake never takes the place of the one that does.
    other = make_context(TLSOptions(), verify=not verify)
    assert {first.verify_mode, other.verify_mode} == {ssl.CERT_REQUIRED, ssl.CERT_NONE}


@BOTH
def test_others_read_for_themselves(store: Path, readings: list[int], verify: bool) -> None:
    shared = make_context(TLSOptions(), verify=verify)
    alone = [make_context(ALONE, verify=verify) for _ in range(2)]
    of_file = make_context(TLSOptions(trust=TrustOptions(ca_file=store)), verify=verify)
    assert len({id(context) for context in (shared, *alone, of_file)}) == 4
    assert len(readings) == 3
    assert make_context(TLSOptions(), verify=verify) is shared


@BOTH
def test_equal_options_share_what_was_read_as_long_as_it_is_used(
    store: Path, readings: list[int], verify: bool
) -> None:
    first = make_context(TLSOptions(minimum_bits=256), verify=verify)
    assert make_context(TLSOptions(minimum_bits=256, log_handshake=True), verify=verify) is first
    assert make_context(TLSOptions(minimum_bits=128), verify=verify) is not first
    assert make_context(TLSOptions(minimum_bits=256), verify=not verify) is not first
    kept = weakref.ref(first)
    del first
    gc.collect()
    assert kept() is None
    readings.clear()
    make_context(TLSOptions(minimum_bits=256), verify=verify)
    assert len(readings) == 1


@BOTH
def test_a_file_of_certificates_is_shared_until_it_changes(
    store: Path, readings: list[int], verify: bool
) -> None:
    options = TLSOptions(trust=TrustOptions(ca_file=store))
    first = make_context(options, verify=verify)
    assert make_context(TLSOptions(trust=TrustOptions(ca_file=store)), verify=verify) is first
    change_file(store)
    second = make_context(options, verify=verify)
    assert second is not first
    assert len(first.get_ca_certs()) + 1 == len(second.get_ca_certs()) or not verify
    alone = replace(options, trust=replace(options.trust, shared_system_store=False))
    assert make_context(alone, verify=verify) is not make_context(alone, verify=verify)


@BOTH
def test_options_that_cannot_be_compared_are_not_shared(store: Path, verify: bool) -> None:
    class Unhashable(str):
        __hash__ = None  # type: ignore[assignment]

    options = TLSOptions(trust=TrustOptions(ca_file=Unhashable(store)))
    assert make_context(options, verify=verify) is not make_context(options, verify=verify)


def change_file(store: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(store), append=True)


def replace_file(store: Path) -> None:
    other = store.with_name("other.pem")
    trustme.CA().cert_pem.write_to_path(str(other))
    os.replace(other, store)


def remove_file(store: Path) -> None:
    store.unlink()


def add_to_folder(store: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(store.with_name("folder") / "0123abcd.0"))


def other_file(store: Path) -> None:
    os.environ["SSL_CERT_FILE"] = str(store.with_name("other.pem"))


@BOTH
@pytest.mark.parametrize("change", [change_file, replace_file, remove_file, add_to_folder, other_file])
def test_a_change_is_read(store: Path, readings: list[int], change: Any, verify: bool) -> None:
    before = make_context(TLSOptions(), verify=verify)
    change(store)
    after = make_context(TLSOptions(), verify=verify)
    assert after is not before and len(readings) == 2
    assert make_context(TLSOptions(), verify=verify) is after


def test_a_key_log_that_is_wanted_later_is_written(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not make_context(TLSOptions()).keylog_filename
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert make_context(TLSOptions()).keylog_filename == str(tmp_path / "keys")


def test_threads_that_come_together_wait_for_one_reading(store: Path, readings: list[int]) -> None:
    together = threading.Barrier(8)

    def make(_: int) -> ssl.SSLContext:
        together.wait()
        return make_context(TLSOptions())

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(8)))) == 1
    assert len(readings) == 1


def test_a_reading_that_fails_is_tried_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> ssl.SSLContext:
        raise OSError("no file")

    with pytest.raises(OSError, match="no file"):
        shared_contexts.get(broken, verify=True)
    assert make_context(TLSOptions()).verify_mode is ssl.CERT_REQUIRED


def demand_reading() -> None:
    assert make_context(TLSOptions()).cert_store_stats()["x509"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_during_a_reading_reads_for_itself(store: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=demand_reading)
    reading, forked = threading.Event(), threading.Event()

    def slow() -> ssl.SSLContext:
        reading.set()
        forked.wait()
        return ssl.create_default_context()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(shared_contexts.get, slow, verify=True)
        reading.wait()
        child.start()
        forked.set()
    child.join(10)
    child.kill()
    assert child.exitcode == 0


async def test_clients_of_one_process_share_the_reading(
    store: Path, readings: list[int], pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca_file))
    async with tls_server(pki) as server:
        for _ in range(3):
            async with client_of(server, host="localhost", security=Security.STARTTLS) as client:
                await asyncio.gather(client.send(mail(1)), client.send(mail(2)))
    assert len(readings) == 1
    assert {message.tls for message in server.messages} == {True}
