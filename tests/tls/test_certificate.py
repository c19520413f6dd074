"""Parsing of certificates, compared with `cryptography`."""

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509 as peer
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tinyasgi.tls import certificate as tls_certificate

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(
    subject: Sequence[Sequence[Any]] = (), names: Sequence[Any] = (), end: int = 2049
) -> bytes:
    name = peer.Name([peer.RelativeDistinguishedName(part) for part in subject])
    builder = (
        peer.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(1990, 1, 1))
        .not_valid_after(datetime.datetime(end, 1, 1))
        .add_extension(peer.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(peer.SubjectAlternativeName(names), critical=not subject)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def attribute(kind: Any, value: str) -> peer.NameAttribute:
    return peer.NameAttribute(kind, value)


@pytest.mark.parametrize("count", [0, 2, 200])  # the length of a value takes one, two, three bytes
def test_hosts(count: int) -> None:
    hosts = ["a.example", "*.b.example", *(f"host{i}.example" for i in range(count))]
    names = [peer.RFC822Name("me@a.example"), *map(peer.DNSName, hosts), peer.DNSName("UPPER")]
    assert tls_certificate.host_names(certificate(names=names)) == (*hosts, "upper")


def test_host_name_not_ascii() -> None:
    """openssl can write such a name. The other names are used."""
    whole = certificate(names=[peer.DNSName("bbcher.example"), peer.DNSName("a.example")])
    assert tls_certificate.host_names(whole.replace(b"bbcher", "bücher".encode("latin-1"))) == (
        "a.example",
    )


def test_no_hosts() -> None:
    assert tls_certificate.host_names(certificate()) == ()
    assert tls_certificate.host_names(certificate(names=[peer.RFC822Name("me@a.example")])) == ()


@pytest.mark.parametrize(
    ("end", "expired"), [(1999, True), (2001, True), (2049, False), (2051, False)]
)
def test_end(end: int, expired: bool) -> None:
    """Years have two digits until 2049, then four."""
    assert tls_certificate.has_expired(certificate(end=end)) is expired


def test_subject() -> None:
    """The example of RFC 4514 §4, parsed by `cryptography`."""
    parts = [
        [attribute(NameOID.DOMAIN_COMPONENT, "net")],
        [attribute(NameOID.DOMAIN_COMPONENT, "example")],
        [
            attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Sales"),
            attribute(NameOID.COMMON_NAME, "J. Smith"),
        ],
    ]
    read = tls_certificate.subject(certificate(parts))
    assert read in (
        "OU=Sales+CN=J. Smith,DC=example,DC=net",
        "CN=J. Smith+OU=Sales,DC=example,DC=net",
    )
    name = peer.Name([peer.RelativeDistinguishedName(part) for part in parts])
    assert peer.Name.from_rfc4514_string(read) == name


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("Jörg €", "Jörg €"),
        ('James "Jim" Smith, III', r"James \"Jim\" Smith\, III"),
        (" a ", r"\ a\ "),
        ("#a#", r"\#a#"),
        ("a+b;c<d>e\\f=g", r"a\+b\;c\<d\>e\\f=g"),
        ("one\r\ntwo", r"one\0d\0atwo"),
    ],
)
def test_values(value: str, written: str) -> None:
    read = tls_certificate.subject(certificate([[attribute(NameOID.COMMON_NAME, value)]]))
    assert read == f"CN={written}"


@pytest.mark.parametrize("kind", ["UTF8String", "PrintableString", "IA5String", "BMPString"])
def test_kinds_of_strings(kind: str) -> None:
    name = peer.NameAttribute(NameOID.COMMON_NAME, "Jim", _type=peer.name._ASN1Type[kind])
    assert tls_certificate.subject(certificate([[name]])) == "CN=Jim"


def test_attribute_type_without_a_name() -> None:
    """Type as a number, value in hexadecimal. Numbers after the arc 2 may exceed 39."""
    kind = peer.ObjectIdentifier("2.999.1234567.3")
    assert (
        tls_certificate.subject(certificate([[attribute(kind, "Jim")]]))
        == "2.999.1234567.3=#0c034a696d"
    )


def test_no_subject() -> None:
    assert tls_certificate.subject(certificate(names=[peer.DNSName("a.example")])) == ""


def test_truncated_certificate() -> None:
    whole = certificate([[attribute(NameOID.COMMON_NAME, "x")]], [peer.DNSName("a.example")])
    for length in range(len(whole)):
        for read in (
            tls_certificate.host_names,
            tls_certificate.subject,
            tls_certificate.has_expired,
        ):
            with pytest.raises(ValueError, match=r"DER|unpack"):
                read(whole[:length])
