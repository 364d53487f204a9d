"""Prediction ids of a real key, and reports about them."""

import base64
import hmac
import struct
from typing import Any

from router.feedback.join import Catalogue, ModelTruth, Report

SECRET = bytes(range(32))
DAY_S = 86_400.0
NOW = 1_700_000_000.0
CREDIT, PRICE, RULE = 11, 12, 21
CATALOGUE = Catalogue(
    ((3, SECRET),),
    {CREDIT: ModelTruth("credit", "probability"), PRICE: ModelTruth("price", "value")},
    {RULE: "credit-2"},
)
_PARTS = struct.Struct("<IIII3sBHHf6s3s")


def mint(number: int = 0, **said: Any) -> str:
    """A prediction id as the engine makes them; `number` makes it another one.

    The layout is written out here so that a change of it does not go unseen.
    """
    bucket = said.get("bucket", 5) | said.get("is_fallback", 0) << 14
    bucket |= said.get("is_sticky", 1) << 15
    body = bytes([1 << 4 | said.get("key", 3)]) + _PARTS.pack(
        int(said.get("time_s", NOW - 60)),
        said.get("model", CREDIT),
        said.get("version", 2),
        said.get("rule", RULE),
        said.get("rollout_revision", 1).to_bytes(3, "little"),
        said.get("variant", 1),
        bucket,
        said.get("propensity_bp", 500),
        said.get("score", 0.75),
        said.get("unit_tag", number).to_bytes(6, "little"),
        number.to_bytes(3, "little"),
    )
    mac = hmac.digest(said.get("secret", SECRET), body, "sha256")[:10]
    return base64.urlsafe_b64encode(body + mac).decode()


def label(number: int = 0, value: float = 1.0, **said: Any) -> Report:
    return Report(mint(number, **said), 0, "label", value)
