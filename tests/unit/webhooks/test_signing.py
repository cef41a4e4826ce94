"""Keys and signatures, checked by `cryptography` from the published PEM alone, as a customer would."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from connector.webhooks.signing import OVERLAP, RETIRED_SIGNATURE, SIGNATURE, KeyRing
from tests.captured_logs import captured_logs, lines_of
from tests.unit.webhooks.fakes import KEY, FakeKeys

BODY = '{"webhookType":"call-started","data":{"from":"Zoë"}}'.encode()


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def verify(pem: str, signature: str, body: bytes = BODY) -> None:
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(base64.b64decode(signature, validate=True), body, padding.PKCS1v15(), SHA256())


async def test_a_signature_verifies_with_the_published_key() -> None:
    ring = KeyRing(FakeKeys())
    await ring.open()
    (key,) = await ring.published()
    assert key.pem.startswith("-----BEGIN PUBLIC KEY-----\n")
    headers = await ring.headers(BODY)
    assert list(headers) == [SIGNATURE]
    verify(key.pem, headers[SIGNATURE])
    with pytest.raises(InvalidSignature):
        verify(key.pem, headers[SIGNATURE], BODY + b" ")


async def test_processes_that_start_together_end_up_with_one_key() -> None:
    keys = FakeKeys()
    rings = [KeyRing(keys) for _ in range(4)]
    await asyncio.gather(*[ring.open() for ring in rings])
    assert len(keys.there) == 1
    (pem,) = {(await ring.published())[0].pem for ring in rings}
    for ring in rings:
        verify(pem, (await ring.headers(BODY))[SIGNATURE])


async def test_a_key_is_kept_over_a_restart() -> None:
    keys = FakeKeys()
    await KeyRing(keys).open()
    (before,) = await KeyRing(keys).published()
    await KeyRing(keys).open()
    assert [key.pem for key in await KeyRing(keys).published()] == [before.pem]


async def test_after_a_rotation_both_keys_verify_until_the_overlap_is_over() -> None:
    keys, clock = FakeKeys(KEY), Clock()
    ring, other_process = KeyRing(keys, clock), KeyRing(keys, clock)
    (old,) = await ring.published()
    new = await ring.rotate()
    for process in (ring, other_process):
        assert [key.pem for key in await process.published()] == [new.pem, old.pem]
        headers = await process.headers(BODY)
        verify(new.pem, headers[SIGNATURE])
        verify(old.pem, headers[RETIRED_SIGNATURE])
    clock.now += OVERLAP - 1
    assert await ring.forget_retired() == 0
    assert RETIRED_SIGNATURE in await ring.headers(BODY)
    clock.now += 1
    assert list(await ring.headers(BODY)) == [SIGNATURE]
    assert [key.pem for key in await ring.published()] == [new.pem]
    assert await ring.forget_retired() == 1
    assert len(keys.there) == 1


async def test_rotating_on_two_processes_at_once_is_one_rotation() -> None:
    keys, clock = FakeKeys(KEY), Clock()
    first, second = await asyncio.gather(KeyRing(keys, clock).rotate(), KeyRing(keys, clock).rotate())
    assert first.pem == second.pem
    assert len(keys.there) == 2


async def test_a_process_that_died_between_the_two_steps_leaves_a_ring_that_works() -> None:
    ring = KeyRing(FakeKeys(replace(KEY, retired_at=Clock.now)), Clock())
    new, old = await ring.published()
    headers = await ring.headers(BODY)
    verify(new.pem, headers[SIGNATURE])
    verify(old.pem, headers[RETIRED_SIGNATURE])


async def test_a_revoked_key_signs_nothing_more() -> None:
    keys, clock = FakeKeys(KEY), Clock()
    ring = KeyRing(keys, clock)
    await ring.rotate()
    old = await ring.published()
    new = await ring.revoke()
    assert [key.pem for key in await ring.published()] == [new.pem]
    assert new.pem not in {key.pem for key in old}
    assert list(await ring.headers(BODY)) == [SIGNATURE]
    assert len(keys.there) == 1


async def test_private_keys_are_not_logged() -> None:
    keys = FakeKeys()
    with captured_logs() as log:
        ring = KeyRing(keys)
        await ring.headers(BODY)
        fresh = await ring.rotate()
        await ring.headers(BODY)
        await ring.headers(BODY)
    (line,) = lines_of(log)
    assert line["key"] == fresh.id
    assert "PRIVATE" not in log.getvalue()
    for key in keys.there.values():
        assert key.private_pem.splitlines()[1] not in log.getvalue()
