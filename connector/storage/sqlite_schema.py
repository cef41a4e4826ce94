"""The schema of the SQLite store, as a list of migrations. A released migration is never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_CALLS = (
    """CREATE TABLE calls (
        call_id TEXT PRIMARY KEY, provider TEXT NOT NULL, direction TEXT NOT NULL, room TEXT NOT NULL,
        identity TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL, created_at REAL NOT NULL,
        carrier_call_id TEXT NOT NULL, from_number TEXT NOT NULL, to_number TEXT NOT NULL,
        started_at REAL NOT NULL, ended_at REAL NOT NULL, end_reason TEXT, end_detail TEXT NOT NULL,
        carrier_status TEXT NOT NULL)""",
    "CREATE INDEX calls_created ON calls (created_at)",
    "CREATE INDEX calls_open ON calls (owner) WHERE end_reason IS NULL",
)

_CONNECTORS_AND_WEBHOOKS = (
    "ALTER TABLE calls ADD COLUMN rule_id TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN connector_id TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN region TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN timelog TEXT NOT NULL DEFAULT '[]'",
    # Connectors, rules, endpoints, keys, waiting calls: few, read by id or name, and new fields are still added.
    """CREATE TABLE documents (
        collection TEXT NOT NULL, id TEXT NOT NULL, created_at REAL NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (collection, id)) WITHOUT ROWID""",
    """CREATE TABLE names (
        collection TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL,
        PRIMARY KEY (collection, name)) WITHOUT ROWID""",
    "CREATE INDEX names_id ON names (collection, id)",
    # `takeable_at` is NULL for deliveries that wait for an earlier one of the same endpoint and call.
    """CREATE TABLE deliveries (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, endpoint_id TEXT NOT NULL,
        call_id TEXT NOT NULL, event TEXT NOT NULL, body TEXT NOT NULL, created_at REAL NOT NULL,
        due_at REAL NOT NULL, attempts INTEGER NOT NULL, takeable_at REAL)""",
    "CREATE INDEX deliveries_line ON deliveries (endpoint_id, call_id, sequence)",
    "CREATE INDEX deliveries_takeable ON deliveries (takeable_at, id) WHERE takeable_at IS NOT NULL",
    """CREATE TABLE attempts (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, delivery_id TEXT NOT NULL, endpoint_id TEXT NOT NULL,
        call_id TEXT NOT NULL, event TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL,
        seconds REAL NOT NULL, status INTEGER NOT NULL, error TEXT NOT NULL)""",
    "CREATE INDEX attempts_at ON attempts (at, sequence)",
    "CREATE INDEX attempts_call ON attempts (call_id, at, sequence)",
    "CREATE INDEX attempts_endpoint ON attempts (endpoint_id, at, sequence)",
)

_ENDS = ("ALTER TABLE calls ADD COLUMN end_id TEXT NOT NULL DEFAULT ''",)
_ACCOUNTS = ("ALTER TABLE calls ADD COLUMN account_id TEXT NOT NULL DEFAULT ''",)
_LISTS = (
    # The searched text in lower case; NULL if an earlier version of the connector wrote the record afterwards.
    "ALTER TABLE calls ADD COLUMN searched TEXT",
    "UPDATE calls SET searched = folded(room, from_number, to_number)",
    "CREATE INDEX calls_unsearched ON calls (call_id) WHERE searched IS NULL",
    # Covering index: most lists are counted and paged with the index alone, without reading records.
    "DROP INDEX calls_created",
    "CREATE INDEX calls_newest ON calls (created_at DESC, call_id, direction, state, provider, searched)",
    "CREATE INDEX calls_room ON calls (room, created_at DESC, call_id)",
    "CREATE INDEX calls_rule ON calls (rule_id, created_at DESC, call_id)",
    "CREATE INDEX calls_connector ON calls (connector_id, created_at DESC, call_id)",
    "ALTER TABLE documents ADD COLUMN indexed TEXT",
    "CREATE INDEX documents_unindexed ON documents (collection) WHERE indexed IS NULL",
    "CREATE INDEX documents_newest ON documents (collection, created_at DESC, id, indexed)",
)
_HANG_UPS = (
    """CREATE TABLE hang_ups (
        id TEXT PRIMARY KEY, body TEXT NOT NULL, takeable_at REAL NOT NULL, attempts INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX hang_ups_takeable ON hang_ups (takeable_at, id)",
)
_TRANSFERS = (
    "ALTER TABLE calls ADD COLUMN transfer_to TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN transfer_status TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN delivery TEXT NOT NULL DEFAULT ''",
)

_WITHDRAWN = ("CREATE TABLE hang_ups_withdrawn (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",)
_LEASES = ("CREATE TABLE leases (owner TEXT PRIMARY KEY, renewed_at REAL NOT NULL) WITHOUT ROWID",)
_LEASE_ADDRESSES = ("ALTER TABLE leases ADD COLUMN address TEXT NOT NULL DEFAULT ''",)
_LEASES_DRAINING = ("ALTER TABLE leases ADD COLUMN draining INTEGER NOT NULL DEFAULT 0",)

MIGRATIONS: Mapping[int, Sequence[str]] = {
    1: _CALLS,
    2: _CONNECTORS_AND_WEBHOOKS,
    3: _ENDS,
    4: _ACCOUNTS,
    5: _LISTS,
    6: _HANG_UPS,
    7: _LEASES,
    8: _TRANSFERS,
    9: _WITHDRAWN,
    10: _LEASE_ADDRESSES,
    11: _LEASES_DRAINING,
}
