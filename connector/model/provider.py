"""The names of the carriers."""

from __future__ import annotations

from enum import StrEnum


class Provider(StrEnum):
    """Names of the carriers in the store, in URLs and in the API; see `connector.carrier_table`."""

    TWILIO = "twilio"
    TELNYX = "telnyx"
    PLIVO = "plivo"
