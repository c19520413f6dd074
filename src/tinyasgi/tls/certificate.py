"""What is read of a certificate (RFC 5280): the hosts it is for, its subject, its end.

The `ssl` module tells this only of certificates that it has verified, which a server's own are not.
A certificate is DER (X.690), in which every value is a tag, a length and content, so the way to a
field takes a few lines. What is no certificate raises ValueError.
"""

import re
import time

__all__ = ["escape", "has_expired", "hosts", "subject"]

# Tags.
OBJECT_IDENTIFIER = 0x06
UTC_TIME = 0x17
VERSION = 0xA0
EXTENSIONS = 0xA3
DNS_NAME = 0x82

#: How a string of each tag is encoded.
STRINGS = {
    0x0C: "utf-8",
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as it is used
    0x16: "ascii",  # IA5String
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}

SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17

#: Names of attribute types: the table of RFC 4514 §3, and what else is registered and in use.
ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.4": "sn",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.42": "givenName",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}

#: What RFC 4514 §2.4 wants escaped, and control characters.
SPECIAL = re.compile(r'[\x00-\x1f\x7f"+,;<>\\]|^[ #]| $')


def hosts(certificate: bytes) -> tuple[str, ...]:
    """The DNS names of subjectAltName (§4.2.1.6), lower-case, also those like `*.example.org`.

    They are ASCII; of one that is not, as tools let it pass, no client can ask for the host.
    """
    *_, (tag, content) = _fields(certificate)
    if tag != EXTENSIONS:
        return ()
    ((_, extensions),) = _values(content)
    for _, extension in _values(extensions):
        (_, kind), *_, (_, value) = _values(extension)
        if kind == SUBJECT_ALT_NAME:
            ((_, names),) = _values(value)
            found = [name for tag, name in _values(names) if tag == DNS_NAME]
            return tuple(name.decode().lower() for name in found if name.isascii())
    return ()


def subject(certificate: bytes) -> str:
    """The distinguished name of its subject, as RFC 4514 writes it: the last part comes first."""
    _, _, _, _, (_, name), *_ = _fields(certificate)
    return ",".join(
        "+".join(_attribute(content) for _, content in _values(part))
        for _, part in reversed(_values(name))
    )


def has_expired(certificate: bytes) -> bool:
    """Whether its time is over (§4.1.2.5)."""
    _, _, _, (_, validity), *_ = _fields(certificate)
    _, (tag, content) = _values(validity)
    end = content.decode("ascii")
    if tag == UTC_TIME:
        end = ("19" if end >= "50" else "20") + end
    return end < time.strftime("%Y%m%d%H%M%SZ", time.gmtime())


def _values(data: bytes) -> list[tuple[int, bytes]]:
    """The tags and contents of values that follow one another. Raises ValueError."""
    found = []
    at = 0
    try:
        while at < len(data):
            tag, length = data[at], data[at + 1]
            at += 2
            if length > 0x7F:  # it is the number of bytes that the length has
                start, at = at, at + length - 0x80
                length = int.from_bytes(data[start:at], "big")
            found.append((tag, data[at : at + length]))
            at += length
    except IndexError:
        at = -1
    if at != len(data):
        raise ValueError("a value of DER that does not end")
    return found


def _fields(certificate: bytes) -> list[tuple[int, bytes]]:
    """Serial number, algorithm, issuer, validity, subject, key, and perhaps more (§4.1)."""
    ((_, content),) = _values(certificate)
    (_, content), *_ = _values(content)
    version, *fields = _values(content)
    return fields if version[0] == VERSION else [version, *fields]


def _attribute(content: bytes) -> str:
    """`CN=name`, or what RFC 4514 §2.4 says when type or value can't be written so."""
    (_, kind), (tag, value) = _values(content)
    number = _dotted(kind)
    name, encoding = ATTRIBUTES.get(number), STRINGS.get(tag)
    if name is None or encoding is None:
        return f"{number}=#{content[2 + len(kind) :].hex()}"
    return f"{name}={escape(value.decode(encoding, 'replace'))}"


def escape(value: str) -> str:
    """A value as it stands in a name (RFC 4514 §2.4)."""

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        return f"\\{character if character.isprintable() else format(ord(character), '02x')}"

    return SPECIAL.sub(escaped, value)


def _dotted(content: bytes) -> str:
    """An object identifier (X.690 §8.19): base 128, the first number holds two arcs."""
    numbers = [0]
    for byte in content:
        numbers[-1] = numbers[-1] << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(0)
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:-1]]))
