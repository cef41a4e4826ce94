"""Call records as rows of named columns, and the filter for records; the same for every store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import orjson

from connector.model.call import CallFilter, CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider

COLUMNS = tuple(field.name for field in fields(CallRecord))


def to_row(record: CallRecord) -> dict[str, str | float | None]:
    row: dict[str, Any] = {name: getattr(record, name) for name in COLUMNS}
    for name in ("provider", "direction", "state"):
        row[name] = row[name].value
    row["end_reason"] = record.end_reason.value if record.end_reason else None
    row["timelog"] = orjson.dumps(record.timelog).decode()
    return row


def from_row(row: Mapping[str, Any]) -> CallRecord:
    """Raises ValueError or KeyError for a row that this version cannot read."""
    return CallRecord(
        call_id=row["call_id"],
        provider=Provider(row["provider"]),
        direction=Direction(row["direction"]),
        room=row["room"],
        identity=row["identity"],
        state=CallState(row["state"]),
        owner=row["owner"],
        created_at=float(row["created_at"]),
        carrier_call_id=row["carrier_call_id"],
        from_number=row["from_number"],
        to_number=row["to_number"],
        started_at=float(row["started_at"]),
        ended_at=float(row["ended_at"]),
        end_reason=EndReason(row["end_reason"]) if row["end_reason"] else None,
        end_detail=row["end_detail"],
        carrier_status=row["carrier_status"],
        rule_id=row["rule_id"],
        connector_id=row["connector_id"],
        region=row["region"],
        # Records in Redis may be older than this column.
        account_id=row.get("account_id", ""),
        timelog=tuple((event, float(at)) for event, at in orjson.loads(row["timelog"])),
        # Records of an earlier version in Redis do not have this column.
        end_id=row.get("end_id", ""),
        # Redis has no schema: records of an earlier version do not have these fields.
        transfer_to=row.get("transfer_to") or "",
        transfer_status=row.get("transfer_status") or "",
        delivery=row.get("delivery") or "",
    )


def contains(text: str, part: str) -> bool:
    """The case-insensitive substring test of `CallFilter.text`."""
    return part.lower() in text.lower()


def searched(record: CallRecord) -> tuple[str, ...]:
    """The fields that `CallFilter.search` searches; `CallFilter.text` also searches the id."""
    return (record.room, record.from_number, record.to_number)


def folded(room: str, from_number: str, to_number: str) -> str:
    """The searched fields as one text in lower case, for a search inside the database."""
    return "\n".join((room, from_number, to_number)).lower()


def admits(where: CallFilter, record: CallRecord) -> bool:
    return (
        (not where.room or record.room == where.room)
        and (where.state is None or record.state is where.state)
        and (where.provider is None or record.provider is where.provider)
        and (where.direction is None or record.direction is where.direction)
        and (not where.rule_id or record.rule_id == where.rule_id)
        and (not where.connector_id or record.connector_id == where.connector_id)
        and (not where.owner or record.owner == where.owner)
        and (not where.text or any(contains(text, where.text) for text in (record.call_id, *searched(record))))
        and (not where.id or record.call_id == where.id)
        and (not where.search or any(contains(text, where.search) for text in searched(record)))
        and record.created_at >= where.created_from
        and (where.created_before is None or record.created_at < where.created_before)
        and (where.after is None or (-record.created_at, record.call_id) > (-where.after[0], where.after[1]))
    )
