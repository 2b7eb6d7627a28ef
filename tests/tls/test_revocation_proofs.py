"""What CRLs and OCSP responses prove, and what they do not."""

import asyncio
import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from smtp_async.tls.revocation_proofs import (
    HASHES,
    Finding,
    Sources,
    crl_octets,
    demands_staple,
    judge_crls,
    judge_ocsp,
    ocsp_request,
    sources_of,
)
from tests.tls.authority import SHA1_RSA, SHA256_RSA, make, rsa_key
from tests.tls.revocation_lab import DAY, HOUR, NOW, Entity, new_root

MINUTE = timedelta(minutes=1)
UNSPECIFIED = x509.ReasonFlags.unspecified


class Family:
    """A root, an intermediate authority and two certificates of it, the second of which is revoked."""

    def __init__(self) -> None:
        self.root = new_root()
        self.authority = self.root.issue("Authority", authority=True)
        self.good = self.authority.issue("good")
        self.revoked = self.authority.issue("revoked")
        self.authority.revoke(self.revoked)
        self.stranger = new_root("Stranger")
        self.against = [self.authority.crl(), self.response(self.revoked)]

    def crls(self, *crls: bytes, of: Entity | None = None, now=NOW) -> Finding:
        issuers = [self.authority.certificate, self.root.certificate]
        return judge_crls((of or self.good).certificate, issuers, crls, now)

    def ocsp(self, response: bytes, *, of: Entity | None = None, now=NOW) -> Finding:
        issuers = [self.authority.certificate, self.root.certificate]
        return judge_ocsp((of or self.good).certificate, issuers, response, now)

    def response(self, of: Entity, **options) -> bytes:
        return self.authority.response(of.certificate.serial_number, **options)


@pytest.fixture(scope="module")
def family() -> Family:
    return Family()


# --- CRLs ----------------------------------------------------------------------------------------------------


def test_a_crl_tells_good_from_revoked(family: Family) -> None:
    crl = family.authority.crl()
    assert family.crls(crl) == Finding(False, until=NOW + DAY)
    found = family.crls(crl, of=family.revoked)
    assert found == Finding(True, reason="a compromised key", since=NOW - DAY, until=NOW + DAY)


@pytest.mark.parametrize("late", [timedelta(0), MINUTE, DAY])
def test_a_slow_clock_does_not_turn_revoked_into_good(late: timedelta) -> None:
    """The authority's clock says that it revoked the certificate later than it is here."""
    root = new_root()
    leaf = root.issue("leaf")
    root.revoke(leaf, since=NOW + late)
    issuers = [root.certificate]
    assert judge_crls(leaf.certificate, issuers, [root.crl()], NOW).revoked is True
    response = root.response(leaf.certificate.serial_number)
    assert judge_ocsp(leaf.certificate, issuers, response, NOW).revoked is True


def test_a_crl_in_pem(family: Family) -> None:
    pem = x509.load_der_x509_crl(family.authority.crl()).public_bytes(serialization.Encoding.PEM)
    assert family.crls(pem).revoked is False
    assert crl_octets(b"\n" + pem) == crl_octets(pem)


def test_the_crl_of_a_root(family: Family) -> None:
    found = judge_crls(family.authority.certificate, [family.root.certificate], [family.root.crl()], NOW)
    assert found.revoked is False


def test_an_intermediate_authority_that_is_trusted_itself(family: Family) -> None:
    issuers = [family.authority.certificate]
    assert judge_crls(family.revoked.certificate, issuers, [family.authority.crl()], NOW).revoked is True
    assert judge_ocsp(family.good.certificate, issuers, family.response(family.good), NOW).revoked is False
    forged = family.authority.crl(signed_by=family.stranger)
    assert judge_crls(family.good.certificate, issuers, [forged], NOW).revoked is None


def test_an_issuer_that_has_expired_may_still_say_what_is_revoked(family: Family) -> None:
    """Whether the path counts is judged elsewhere, and the application may excuse it."""
    old = family.root.issue("Old", authority=True, valid=(NOW - 9 * DAY, NOW - DAY))
    leaf = old.issue("leaf")
    issuers = [old.certificate, family.root.certificate]
    assert judge_crls(leaf.certificate, issuers, [old.crl()], NOW).revoked is False
    response = old.response(leaf.certificate.serial_number)
    assert judge_ocsp(leaf.certificate, issuers, response, NOW).revoked is False


@pytest.mark.parametrize(
    ("now", "revoked"),
    [
        (NOW - HOUR - 6 * MINUTE, None),
        (NOW - HOUR - 4 * MINUTE, False),
        (NOW + DAY + 4 * MINUTE, False),
        (NOW + DAY + 6 * MINUTE, None),
    ],
)
def test_dates_count_with_five_minutes_for_the_clocks(family: Family, now, revoked) -> None:
    assert family.crls(family.authority.crl(), now=now).revoked is revoked
    assert family.ocsp(family.response(family.good), now=now).revoked is revoked


@pytest.mark.parametrize(
    "name", ["signed by another", "issued by another", "expired", "not yet valid", "another part"]
)
def test_a_crl_that_proves_nothing(family: Family, name: str) -> None:
    only_attributes = x509.IssuingDistributionPoint(None, None, False, False, None, False, True)
    crl = {
        "signed by another": lambda: family.authority.crl(signed_by=family.stranger),
        "issued by another": lambda: family.stranger.crl(),
        "expired": lambda: family.authority.crl(since=NOW - 9 * DAY, until=NOW - DAY),
        "not yet valid": lambda: family.authority.crl(since=NOW + DAY, until=NOW + 9 * DAY),
        "another part": lambda: family.authority.crl(extensions=[only_attributes]),
    }[name]()
    for of in (family.good, family.revoked):
        found = family.crls(crl, of=of)
        assert found.revoked is None and found.why


def test_a_certificate_cannot_vouch_for_itself(family: Family) -> None:
    """Someone who has the key of a revoked certificate makes a CRL in its own name, or in that of its issuer."""
    indirect = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)
    for extensions in ([], [indirect]):
        assert family.crls(family.revoked.crl(extensions=extensions), of=family.revoked).revoked is None
    empty = Entity(family.authority.certificate.x509, family.revoked.key)
    assert family.crls(empty.crl(), of=family.revoked).revoked is None


def test_crls_that_cover_a_part_of_the_reasons_each(family: Family) -> None:
    flags = set(x509.ReasonFlags) - {x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl}
    keys = frozenset({x509.ReasonFlags.key_compromise, x509.ReasonFlags.ca_compromise})

    def part(reasons: frozenset[x509.ReasonFlags]) -> bytes:
        point = x509.IssuingDistributionPoint(None, None, False, False, reasons, False, False)
        return family.authority.crl(extensions=[point])

    one, rest = part(keys), part(frozenset(flags - keys))
    assert family.crls(one).revoked is None
    assert family.crls(one, rest).revoked is False
    assert family.crls(one, of=family.revoked).revoked is True


def test_delta_crls_count_if_they_are_given(family: Family) -> None:
    """A base list of before the revocation says where its delta is; the delta has the revocation."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier("http://delta/")], None, None, None)
    root = new_root()
    leaf = root.issue("leaf")
    number = x509.CRLNumber(7)
    base = root.crl(plain_extensions=[x509.FreshestCRL([point]), number])
    root.revoke(leaf)
    delta = root.crl(extensions=[x509.DeltaCRLIndicator(7)], plain_extensions=[x509.CRLNumber(8)])
    issuers = [root.certificate]
    assert judge_crls(leaf.certificate, issuers, [base], NOW).revoked is False
    assert judge_crls(leaf.certificate, issuers, [base, delta], NOW).revoked is True
    assert judge_crls(leaf.certificate, issuers, [delta], NOW).revoked is None


def test_an_answer_is_valid_until_the_first_list_ends(family: Family) -> None:
    long, short = family.authority.crl(until=NOW + 9 * DAY), family.authority.crl(until=NOW + HOUR)
    ended = family.authority.crl(until=NOW - HOUR / 2)
    assert family.crls(long, short, ended).until == NOW + HOUR


def test_garbage_beside_a_crl_does_no_harm(family: Family) -> None:
    assert family.crls(b"garbage", family.authority.crl(), b"").revoked is False


def test_a_long_crl(family: Family) -> None:
    """The validator takes two seconds for as many entries, unless those about others are left out."""
    listed = family.authority.issue("listed last")
    lengthy = family.authority.crl(padding=100_000, since=NOW - HOUR)
    began = time.process_time()
    assert family.crls(lengthy).revoked is False
    assert time.process_time() - began < 1.8
    family.authority.revoke(listed)
    try:
        assert family.crls(family.authority.crl(padding=2_000), of=listed).revoked is True
    finally:
        del family.authority.revoked[listed.certificate.serial_number]


@given(
    serials=st.lists(st.integers(1, 2**64), max_size=5), serial=st.integers(1, 2**64), listed=st.booleans()
)
def test_a_serial_number_is_found_wherever_it_stands(serials: list[int], serial: int, listed: bool) -> None:
    root = new_root()
    leaf = root.issue("leaf", serial=serial)
    root.revoked = dict.fromkeys([one for one in serials if one != serial], (NOW - DAY, UNSPECIFIED))
    if listed:
        root.revoked[serial] = NOW - DAY, UNSPECIFIED
    found = judge_crls(leaf.certificate, [root.certificate], [root.crl()], NOW)
    assert found.revoked is listed


def test_answers_signed_with_sha1_do_not_count(family: Family) -> None:
    # cryptography signs nothing with SHA-1 any more: another algorithm is written over it, and looked at first.
    signer = Entity(make("Signer", key=rsa_key(2048)).x509, rsa_key(2048))  # type: ignore[arg-type]
    crl, response = family.authority.crl(signed_by=signer), family.response(family.good, responder=signer)
    aged = [data.replace(SHA256_RSA, SHA1_RSA) for data in (crl, response)]
    assert family.crls(aged[0]) == family.ocsp(aged[1]) == Finding(None, "is signed with SHA1")


# --- OCSP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_name", HASHES)
def test_ocsp_tells_good_from_revoked(family: Family, hash_name: str) -> None:
    algorithm = getattr(hashes, hash_name.upper())()
    response = family.response(family.good, hash_algorithm=algorithm)
    assert family.ocsp(response) == Finding(False, until=NOW + DAY)
    found = family.ocsp(family.response(family.revoked, hash_algorithm=algorithm), of=family.revoked)
    assert found == Finding(True, reason="a compromised key", since=NOW - DAY, until=NOW + DAY)


def test_a_delegated_responder(family: Family) -> None:
    found = family.ocsp(family.response(family.good, responder=family.authority.responder()))
    assert found.revoked is False


@pytest.mark.parametrize("name", ["no usage", "of another authority", "expired", "the certificate itself"])
def test_a_responder_that_may_not_answer(family: Family, name: str) -> None:
    responder = {
        "no usage": lambda: family.authority.responder(allowed=False),
        "of another authority": lambda: family.stranger.responder(),
        "expired": lambda: family.authority.responder(valid=(NOW - 9 * DAY, NOW - DAY)),
        "the certificate itself": lambda: family.good,
    }[name]()
    found = family.ocsp(family.response(family.good, responder=responder))
    assert found.revoked is None and found.why.startswith("is no proof: ")


def test_a_response_about_another_certificate(family: Family) -> None:
    found = family.ocsp(family.response(family.good), of=family.revoked)
    assert found == Finding(None, "answers for other certificates only")
    # The same number, of another authority.
    serial = family.revoked.certificate.serial_number
    found = family.ocsp(family.stranger.response(serial), of=family.revoked)
    assert found.revoked is None


def test_a_responder_that_does_not_know(family: Family) -> None:
    assert family.ocsp(family.response(family.good, known=False)) == Finding(
        None, "does not know the certificate"
    )


@pytest.mark.parametrize(
    "status", ["TRY_LATER", "UNAUTHORIZED", "INTERNAL_ERROR", "MALFORMED_REQUEST", "SIG_REQUIRED"]
)
def test_a_responder_that_refuses(family: Family, status: str) -> None:
    response = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus[status])
    found = family.ocsp(response.public_bytes(serialization.Encoding.DER))
    assert found == Finding(None, f"answers {status.lower().replace('_', ' ')}")


def test_a_response_without_an_end_is_valid_for_half_an_hour(family: Family) -> None:
    response = family.response(family.good, since=NOW, until=None)
    assert family.ocsp(response) == Finding(False, until=NOW + 30 * MINUTE)
    assert family.ocsp(response, now=NOW + HOUR).revoked is None


# --- garbage -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_garbage_proves_nothing(family: Family, data: bytes) -> None:
    assert family.crls(data).revoked is None
    assert family.ocsp(data).revoked is None


@given(st.data())
def test_an_answer_that_was_changed_never_turns_revoked_into_good(
    family: Family, data: st.DataObject
) -> None:
    answer = bytearray(data.draw(st.sampled_from(family.against), label="answer"))
    for _ in range(data.draw(st.integers(1, 3))):
        # Signatures are not always of the same length.
        place = data.draw(st.integers(0, 4095)) % len(answer)
        answer[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, 20))
    changed = bytes(answer[: len(answer) - end])
    assert family.crls(changed, of=family.revoked).revoked is not False
    assert family.ocsp(changed, of=family.revoked).revoked is not False


@pytest.mark.parametrize("padding", [300_000, 3_000_000])
def test_long_answers_without_a_signature_cost_little(family: Family, padding: int) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(padding))
    crl = family.stranger.crl(plain_extensions=[extension])
    response = family.response(family.good) + bytes(padding)
    began = time.process_time()
    found = family.crls(crl)
    assert found.revoked is None and "more than 262144 bytes" in found.why
    found = family.ocsp(response)
    assert found.revoked is None and f"{len(response)} bytes, of 262144 at most" in found.why
    assert time.process_time() - began < 2


# --- certificates --------------------------------------------------------------------------------------------


def test_where_a_certificate_can_be_asked_for(family: Family) -> None:
    leaf = family.authority.issue(
        "leaf",
        ocsp_urls=["http://a/", "ldap://b/", "HTTPS://c/", "http://a/"],
        crl_urls=[f"http://crl/{n}" for n in range(1000)],
    )
    found = sources_of(leaf.certificate)
    assert found == Sources(("http://a/", "HTTPS://c/"), tuple(f"http://crl/{n}" for n in range(4)))
    assert sources_of(family.good.certificate) == Sources()
    elsewhere = family.authority.issue("leaf", crl_urls=["ldap://b/"])
    assert sources_of(elsewhere.certificate) == Sources(elsewhere=True)


def test_certificates_that_nobody_revokes(family: Family) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00")
    assert sources_of(family.authority.issue("leaf", extensions=[extension]).certificate).never


def test_must_staple(family: Family) -> None:
    feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
    assert demands_staple(family.authority.issue("leaf", extensions=[feature]).certificate)
    other = x509.TLSFeature([x509.TLSFeatureType.status_request_v2])
    assert not demands_staple(family.authority.issue("leaf", extensions=[other]).certificate)
    assert not demands_staple(family.good.certificate)


@pytest.mark.parametrize("hash_name", HASHES)
def test_requests(family: Family, hash_name: str) -> None:
    request = ocsp.load_der_ocsp_request(
        ocsp_request(family.good.certificate, family.authority.certificate, hash_name)
    )
    assert request.serial_number == family.good.certificate.serial_number
    assert request.hash_algorithm.name == hash_name
    assert list(request.extensions) == []


async def test_judging_needs_no_loop_of_its_own_thread(family: Family) -> None:
    issuers = [family.authority.certificate, family.root.certificate]
    found = await asyncio.to_thread(
        judge_crls, family.good.certificate, issuers, [family.authority.crl()], NOW
    )
    assert found.revoked is False
