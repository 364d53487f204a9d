"""An attestation: one environment's fingerprint, signed, to be held against another.

Staging writes it when it is satisfied; production requires it before a rollout begins,
and checks that it is whole, from who holds the key, recent, about the versions in
question, and that nothing that can change answers is different here.

A key file holds a shared secret in hexadecimal (HMAC-SHA256; 32 bytes or more), or an
Ed25519 key in PEM: the private one signs, the public one is enough to verify. PEM needs
the package `cryptography` (extra `attest`). The secret never leaves the file.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from router.clock import Clock
from router.config.config import Config
from router.errors import RouterError
from router.lab.bay import of_one
from router.lab.fingerprint import (
    Fingerprint,
    FingerprintError,
    dump_fingerprint,
    fingerprint_of,
    load_fingerprint,
)
from router.lab.parity import compare
from router.plan.rollout import Spec

FORMAT = 1
SECRET_MIN = 32  # bytes; a hash's length
CLOCK_SLACK_S = 300.0  # two machines' clocks
FILE_MAX = 64 * 1024 * 1024


class AttestationError(RouterError):
    """An attestation, or its key, that cannot be used."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose word counts, and for how long."""

    key: str
    max_age_s: float


def attest(fingerprint: Fingerprint, key: str) -> str:
    """The attestation of a fingerprint, signed with the key in a file."""
    content = dump_fingerprint(fingerprint)
    digest = hashlib.sha256(content.encode()).hexdigest()
    kind, sign = _signer(_read(key), key)
    whole = {
        "format": FORMAT, "kind": kind, "sha256": digest,
        "signature": sign(_signed(kind, digest)).hex(), "fingerprint": content,
    }  # fmt: skip
    return json.dumps(whole, indent=1)


def read_attestation(path: str, trust: Trust, clock: Clock) -> Fingerprint:
    """The fingerprint in an attestation, once its origin and age are known."""
    try:
        whole = json.loads(_read(path))
        kind, digest = str(whole["kind"]), str(whole["sha256"])
        signature = bytes.fromhex(whole["signature"])
        content, written = str(whole["fingerprint"]), whole["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise AttestationError(f"{path}: not an attestation") from error
    if written != FORMAT:
        raise AttestationError(f"{path}: format {written}, this router reads {FORMAT}")
    if hashlib.sha256(content.encode()).hexdigest() != digest:
        raise AttestationError(f"{path}: its fingerprint was changed")
    if not _verifies(_read(trust.key), trust.key, kind, digest, signature):
        raise AttestationError(f"{path}: not signed with the key in {trust.key}")
    made = load_fingerprint(content, path)
    age_s = clock.now() - made.made_s
    if age_s > trust.max_age_s:
        days = 86_400.0
        raise AttestationError(
            f"{path}: {age_s / days:.1f} days old, at most {trust.max_age_s / days:.1f}"
            " are allowed; attest again"
        )
    if age_s < -CLOCK_SLACK_S:
        raise AttestationError(f"{path}: made {-age_s:.0f} s from now")
    return made


def why_refused(attested: Fingerprint, here: Fingerprint, spec: Spec) -> str | None:
    """The point in which this environment is not the attested one; None when nothing
    that can change answers differs.

    Of versions only those matter that the rollout has and the attestation covers; it
    has to cover the candidates.
    """
    for version in spec.candidates:
        if not _holds(attested, spec.model, version):
            return f"it does not cover model '{spec.model}' version {version}"
    versions = [
        version
        for version in (spec.stable, *spec.candidates)
        if _holds(attested, spec.model, version)
    ]
    first, second = (
        replace(side, points=dict(_relevant(side, spec.model, versions)))
        for side in (attested, here)
    )
    for point in compare(first, second):
        if point.severity == "blocking":
            where = attested.environment or "the attested environment"
            return f"{point.name} is {point.second} here, and {point.first} in {where}"
    return None


def _relevant(
    made: Fingerprint, model: str, versions: Iterable[int]
) -> Iterator[tuple[str, Any]]:
    prefixes = tuple(f"models/{model}/{version}/" for version in versions)
    for name, value in made.points.items():
        if not name.startswith("models/") or name.startswith(prefixes):
            yield name, value


def verifier(
    clock: Clock, environment: str = ""
) -> Callable[[Config, Spec, str], str | None]:
    """What a preflight asks: why an attestation does not hold here, or None.

    The rollout's versions are loaded once more for it, beside those that serve, so that
    their answers are looked at as they were where the attestation was made.
    """

    def verify(config: Config, spec: Spec, path: str) -> str | None:
        given = config.server.attestation
        if given is None:
            return "server.attestation names no key to check it with"
        try:
            attested = read_attestation(path, Trust(given.key, given.max_age), clock)
        except (AttestationError, FingerprintError) as error:
            return str(error).removeprefix(f"{path}: ")
        serve = of_one(config, spec.model, (spec.stable, *spec.candidates))
        return why_refused(attested, fingerprint_of(serve, clock, environment), spec)

    return verify


def _holds(made: Fingerprint, model: str, version: int) -> bool:
    return f"models/{model}/{version}/sha256" in made.points


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise AttestationError(f"{path}: {reason}") from None
    if len(data) > FILE_MAX:
        raise AttestationError(f"{path}: larger than {FILE_MAX} bytes")
    return data.decode("utf-8", "replace")


def _signed(kind: str, digest: str) -> bytes:
    return f"router attestation {FORMAT} {kind} {digest}".encode()


def _signer(key: str, name: str) -> tuple[str, Callable[[bytes], bytes]]:
    if "-----BEGIN" not in key:
        secret = _secret(key, name)
        return "hmac-sha256", lambda data: hmac.digest(secret, data, "sha256")
    loaded = _load_pem(key, name)
    if not hasattr(loaded, "sign"):
        raise AttestationError(f"{name}: a public key cannot sign")
    return "ed25519", loaded.sign


def _verifies(key: str, name: str, kind: str, digest: str, signature: bytes) -> bool:
    if "-----BEGIN" not in key:
        if kind != "hmac-sha256":
            return False
        expected = hmac.digest(_secret(key, name), _signed(kind, digest), "sha256")
        return hmac.compare_digest(expected, signature)
    if kind != "ed25519":
        return False
    loaded = _load_pem(key, name)
    public = loaded.public_key() if hasattr(loaded, "public_key") else loaded
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, _signed(kind, digest))
    except InvalidSignature:
        return False
    return True


def _secret(text: str, name: str) -> bytes:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) < SECRET_MIN:
        raise AttestationError(
            f"{name}: not a key: at least {SECRET_MIN} bytes in hexadecimal"
            " (`openssl rand -hex 32`), or an Ed25519 key in PEM"
        )
    return secret


def _load_pem(text: str, name: str) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise AttestationError(
            f"{name}: PEM keys need a package: pip install 'inference-router[attest]'"
        ) from None
    try:
        if "PRIVATE" in text:
            key: Any = serialization.load_pem_private_key(text.encode(), None)
        else:
            key = serialization.load_pem_public_key(text.encode())
    except (ValueError, TypeError) as error:
        raise AttestationError(f"{name}: not a PEM key: {error}") from None
    kinds = (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)
    if not isinstance(key, kinds):
        raise AttestationError(f"{name}: not an Ed25519 key")
    return key
