"""Host names, subject and expiry of a certificate (RFC 5280).

`ssl` decodes only certificates that it has verified, which does not include a server's own. Its
subjects lack the encoding of the values, which RFC 4514 needs for some attribute types.

Certificates are in DER (X.690): each value consists of a tag, a length and content. All functions
raise ValueError for an invalid certificate.
"""

import re
import time

# Tags.
UTC_TIME = 0x17
VERSION = 0xA0
EXTENSIONS = 0xA3
DNS_NAME = 0x82

#: Encodings of the string types, by tag.
STRINGS = {
    0x0C: "utf-8",
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as used in practice
    0x16: "ascii",  # IA5String
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}

SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17

#: Names of attribute types: the table of RFC 4514 §3, and other registered names in use.
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

#: Characters that RFC 4514 §2.4 requires to be escaped, and control characters.
SPECIAL = re.compile(r'[\x00-\x1f\x7f"+,;<>\\]|^[ #]| $')


def host_names(certificate: bytes) -> tuple[str, ...]:
    """Return the DNS names of subjectAltName in lower case, with wildcards (§4.2.1.6).

    Some tools write names that are not ASCII. These are left out, because no client can request
    them.
    """
    *_, (tag, content) = _certificate_fields(certificate)
    if tag != EXTENSIONS:
        return ()
    ((_, extensions),) = _parse_der(content)
    for _, extension in _parse_der(extensions):
        (_, kind), *_, (_, value) = _parse_der(extension)
        if kind == SUBJECT_ALT_NAME:
            ((_, names),) = _parse_der(value)
            found = [name for tag, name in _parse_der(names) if tag == DNS_NAME]
            return tuple(name.decode().lower() for name in found if name.isascii())
    return ()


def subject(certificate: bytes) -> str:
    """Return the distinguished name of the subject by RFC 4514: the last part comes first."""
    _, _, _, _, (_, name), *_ = _certificate_fields(certificate)
    return ",".join(
        "+".join(_format_attribute(content) for _, content in _parse_der(part))
        for _, part in reversed(_parse_der(name))
    )


def has_expired(certificate: bytes) -> bool:
    """Return whether the validity period has ended (§4.1.2.5)."""
    _, _, _, (_, validity), *_ = _certificate_fields(certificate)
    _, (tag, content) = _parse_der(validity)
    end = content.decode("ascii")
    if tag == UTC_TIME:
        end = ("19" if end >= "50" else "20") + end
    return end < time.strftime("%Y%m%d%H%M%SZ", time.gmtime())


def _parse_der(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each value in a sequence. Raises ValueError."""
    values = []
    at = 0
    try:
        while at < len(data):
            tag, length = data[at], data[at + 1]
            at += 2
            if length > 0x7F:  # the number of bytes in the length field
                start, at = at, at + length - 0x80
                length = int.from_bytes(data[start:at], "big")
            values.append((tag, data[at : at + length]))
            at += length
    except IndexError:
        at = -1
    if at != len(data):
        raise ValueError("truncated DER value")
    return values


def _certificate_fields(certificate: bytes) -> list[tuple[int, bytes]]:
    """Return the fields from the serial number on; the subject is the fifth (§4.1)."""
    ((_, content),) = _parse_der(certificate)
    (_, content), *_ = _parse_der(content)
    version, *fields = _parse_der(content)
    return fields if version[0] == VERSION else [version, *fields]


def _format_attribute(content: bytes) -> str:
    """Return `CN=name`, or the hexadecimal form if the type has no name (RFC 4514 §2.4)."""
    (_, kind), (tag, value) = _parse_der(content)
    number = _dotted_number(kind)
    name, encoding = ATTRIBUTES.get(number), STRINGS.get(tag)
    if name is None or encoding is None:
        return f"{number}=#{content[2 + len(kind) :].hex()}"
    return f"{name}={escape(value.decode(encoding, 'replace'))}"


def escape(value: str) -> str:
    """Escape a value for a distinguished name (RFC 4514 §2.4)."""

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        return f"\\{character if character.isprintable() else format(ord(character), '02x')}"

    return SPECIAL.sub(escaped, value)


def _dotted_number(content: bytes) -> str:
    """Decode an object identifier (X.690 §8.19): base 128, two arcs in the first number."""
    numbers = [0]
    for byte in content:
        numbers[-1] = numbers[-1] << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(0)
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:-1]]))
