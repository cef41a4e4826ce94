"""Every carrier of the table, with the settings' defaults."""

from __future__ import annotations

from connector.carrier_table import TABLE
from connector.carriers.carrier import Carriers

CARRIERS: Carriers = {entry.carrier.provider: entry.carrier() for entry in TABLE}
