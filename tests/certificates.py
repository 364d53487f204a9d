"""Certificates for tests: an authority, and what it signs. ECDSA P-256 throughout.

Times are offsets from now in days, because OpenSSL looks at the real clock.
"""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and the leaf's key, in PEM."""

    chain: bytes
    key: bytes

    def write(self, folder: Path, name: str = "server") -> tuple[Path, Path]:
        """Put both into files, each in one step; their paths."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, text in zip(paths, (self.chain, self.key), strict=True):
            partial = path.with_name(path.name + ".new")
            partial.write_bytes(text)
            partial.replace(path)
        return paths


class Authority:
    """Signs certificates. One made by `intermediate` puts itself into their chains."""

    def __init__(self, name: str = "authority", parent: "Authority | None" = None):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._above = b"" if parent is None else parent._above
        signer = parent or self
        certificate = (
            _builder(self._name, signer._name, self._key.public_key(), (-1, 365))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .sign(signer._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(PEM)
        if parent is not None:
            self._above = self.pem + parent._above

    def intermediate(self, name: str = "intermediate") -> "Authority":
        return Authority(name, self)

    def issue(
        self,
        name: str = "server",
        *,
        dns: Iterable[str] = ("localhost",),
        uris: Iterable[str] = (),
        valid_days: tuple[float, float] = (-1, 30),
    ) -> Pair:
        """A certificate for 127.0.0.1 and these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            *map(x509.DNSName, dns),
            *map(x509.UniformResourceIdentifier, uris),
        ]
        certificate = (
            _builder(_name(name), self._name, key.public_key(), valid_days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        secret = key.private_bytes(
            PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Pair(certificate.public_bytes(PEM) + self._above, secret)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    valid_days: tuple[float, float],
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    first, last = (now + datetime.timedelta(days=day) for day in valid_days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )
