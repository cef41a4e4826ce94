"""Our messages are LiveKit's messages: same numbers, names, types and values, so same bytes and same JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from livekit.protocol import agent_dispatch, connector, connector_twilio

from connectorpb.v1 import connector_pb2 as ours


def described(message: type[Message]) -> Descriptor:
    # The stubs call it a union with the class of the C implementation, which has the same interface.
    return cast(Descriptor, message.DESCRIPTOR)


MESSAGES = {
    "ConnectTwilioCallRequest": (
        described(ours.ConnectTwilioCallRequest),
        described(connector_twilio.ConnectTwilioCallRequest),
    ),
    "ConnectTwilioCallResponse": (
        described(ours.ConnectTwilioCallResponse),
        described(connector_twilio.ConnectTwilioCallResponse),
    ),
    "RoomAgentDispatch": (described(ours.RoomAgentDispatch), described(agent_dispatch.RoomAgentDispatch)),
}


def differences(ours: Descriptor, theirs: Descriptor) -> list[str]:
    """What a client could tell apart, each named by the path of its field; the package names may differ."""
    return _message_differences(ours, theirs, ours.name, frozenset())


def _message_differences(
    ours: Descriptor, theirs: Descriptor, path: str, seen: frozenset[tuple[str, str]]
) -> list[str]:
    pair = (ours.full_name, theirs.full_name)
    if pair in seen:
        return []
    seen |= {pair}
    found = _unequal(
        path,
        name=(_local_name(ours), _local_name(theirs)),
        map_entry=(ours.GetOptions().map_entry, theirs.GetOptions().map_entry),
        fields=(sorted(ours.fields_by_number), sorted(theirs.fields_by_number)),
        oneofs=(_oneofs(ours), _oneofs(theirs)),
        nested=(sorted(ours.nested_types_by_name), sorted(theirs.nested_types_by_name)),
        enums=(sorted(ours.enum_types_by_name), sorted(theirs.enum_types_by_name)),
        extension_ranges=(ours.is_extendable, theirs.is_extendable),
    )
    for number in set(ours.fields_by_number) & set(theirs.fields_by_number):
        a, b = ours.fields_by_number[number], theirs.fields_by_number[number]
        found += _field_differences(a, b, f"{path}.{b.name}", seen)
    for name in set(ours.nested_types_by_name) & set(theirs.nested_types_by_name):
        nested = (ours.nested_types_by_name[name], theirs.nested_types_by_name[name])
        found += _message_differences(*nested, f"{path}.{name}", seen)
    for name in set(ours.enum_types_by_name) & set(theirs.enum_types_by_name):
        found += _enum_differences(ours.enum_types_by_name[name], theirs.enum_types_by_name[name], f"{path}.{name}")
    return found


def _field_differences(
    ours: FieldDescriptor, theirs: FieldDescriptor, path: str, seen: frozenset[tuple[str, str]]
) -> list[str]:
    found = _unequal(
        path,
        name=(ours.name, theirs.name),
        json_name=(ours.json_name, theirs.json_name),
        type=(ours.type, theirs.type),
        repeated=(ours.is_repeated, theirs.is_repeated),
        required=(ours.is_required, theirs.is_required),
        packed=(ours.is_packed, theirs.is_packed),
        presence=(ours.has_presence, theirs.has_presence),
        default=(ours.default_value, theirs.default_value),
        refers_to_message=(ours.message_type is None, theirs.message_type is None),
        refers_to_enum=(ours.enum_type is None, theirs.enum_type is None),
    )
    if ours.message_type is not None and theirs.message_type is not None:
        found += _message_differences(ours.message_type, theirs.message_type, path, seen)
    if ours.enum_type is not None and theirs.enum_type is not None:
        found += _enum_differences(ours.enum_type, theirs.enum_type, path)
    return found


def _enum_differences(ours: EnumDescriptor, theirs: EnumDescriptor, path: str) -> list[str]:
    return _unequal(
        path,
        name=(_local_name(ours), _local_name(theirs)),
        closed=(ours.is_closed, theirs.is_closed),
        values=([(v.name, v.number) for v in ours.values], [(v.name, v.number) for v in theirs.values]),
    )


def _unequal(path: str, **facts: tuple[object, object]) -> list[str]:
    return [f"{path} {fact}: {a!r} != {b!r}" for fact, (a, b) in facts.items() if a != b]


def _local_name(descriptor: Descriptor | EnumDescriptor) -> str:
    return descriptor.full_name.removeprefix(descriptor.file.package + ".")


def _oneofs(descriptor: Descriptor) -> list[tuple[str, list[str]]]:
    return [(oneof.name, [field.name for field in oneof.fields]) for oneof in descriptor.oneofs]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_livekits(name: str) -> None:
    mine, theirs = MESSAGES[name]
    assert differences(mine, theirs) == []


def test_every_message_of_ours_with_livekits_name_is_compared() -> None:
    theirs = {
        name
        for module in (connector, connector_twilio, agent_dispatch)
        for name in module.DESCRIPTOR.message_types_by_name
    }
    assert set(MESSAGES) == set(ours.DESCRIPTOR.message_types_by_name) & theirs


FULL: dict[str, Any] = {
    "twilio_call_direction": "TWILIO_CALL_DIRECTION_OUTBOUND",
    "room_name": "room — ü",
    "agents": [
        {"agent_name": "greeter", "metadata": '{"a":1}', "restart_policy": "JRP_NEVER", "deployment": "blue"},
        {"agent_name": "second", "attributes": {"k": "v", "": "empty key"}},
    ],
    "participant_identity": "caller-1",
    "participant_name": "Ada",
    "participant_metadata": "m",
    "participant_attributes": {"tier": "gold", "empty": ""},
    "destination_country": "US",
}


def full(of: type[Message]) -> Message:
    """FULL as a message of this class."""
    return json_format.ParseDict(FULL, of())


def test_the_sample_sets_every_field() -> None:
    request = full(connector_twilio.ConnectTwilioCallRequest)
    assert {field.name for field, _ in request.ListFields()} == set(FULL)
    assert set(FULL) == set(request.DESCRIPTOR.fields_by_name)
    in_dispatches = {name for dispatch in FULL["agents"] for name in dispatch}
    assert in_dispatches == set(agent_dispatch.RoomAgentDispatch.DESCRIPTOR.fields_by_name)


BOTH_WAYS = pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (ours.ConnectTwilioCallRequest, connector_twilio.ConnectTwilioCallRequest),
        (connector_twilio.ConnectTwilioCallRequest, ours.ConnectTwilioCallRequest),
    ],
    ids=["ours-to-theirs", "theirs-to-ours"],
)


@BOTH_WAYS
def test_bytes_of_one_are_bytes_of_the_other(writer: type[Message], reader: type[Message]) -> None:
    sent = full(writer).SerializeToString(deterministic=True)
    received = reader.FromString(sent)
    assert received == full(reader)
    assert received.SerializeToString(deterministic=True) == sent


@BOTH_WAYS
@pytest.mark.parametrize("names", [True, False], ids=["snake_case", "lowerCamelCase"])
def test_json_of_one_is_json_of_the_other(writer: type[Message], reader: type[Message], names: bool) -> None:
    sent = json_format.MessageToJson(full(writer), preserving_proto_field_name=names, sort_keys=True)
    received = json_format.Parse(sent, reader())
    assert received == full(reader)
    assert json_format.MessageToJson(received, preserving_proto_field_name=names, sort_keys=True) == sent


def test_the_response_reads_the_same() -> None:
    url = "wss://connector.example/twilio/abc"
    sent = ours.ConnectTwilioCallResponse(connect_url=url)
    theirs = connector_twilio.ConnectTwilioCallResponse.FromString(sent.SerializeToString())
    assert theirs.connect_url == url
    assert json_format.MessageToDict(theirs) == json_format.MessageToDict(sent) == {"connectUrl": url}


def test_the_service_has_the_method_under_our_name() -> None:
    method = ours.DESCRIPTOR.services_by_name["Connector"].methods_by_name["ConnectTwilioCall"]
    assert method.full_name == "connector.v1.Connector.ConnectTwilioCall"
    assert method.input_type is ours.ConnectTwilioCallRequest.DESCRIPTOR
    assert method.output_type is ours.ConnectTwilioCallResponse.DESCRIPTOR


# The comparison itself: each of these changes to our file must be seen.


def request_of(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.DescriptorProto:
    return next(message for message in file.message_type if message.name == "ConnectTwilioCallRequest")


def dispatch_of(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.DescriptorProto:
    return next(message for message in file.message_type if message.name == "RoomAgentDispatch")


def renumber(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).field[1].number = 20


def rename(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).field[1].name = "room"


def rename_in_json(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).field[1].json_name = "room"


def retype(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).field[1].type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES


def repeat(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).field[1].label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


def make_optional(file: descriptor_pb2.FileDescriptorProto) -> None:
    request = request_of(file)
    request.oneof_decl.add(name="_room_name")
    request.field[1].oneof_index = 0
    request.field[1].proto3_optional = True


def leave_out(file: descriptor_pb2.FileDescriptorProto) -> None:
    del request_of(file).field[7]


def add(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).field.add(
        name="more",
        number=9,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )


def rename_direction(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).enum_type[0].value[1].name = "OUTBOUND"


def renumber_direction(file: descriptor_pb2.FileDescriptorProto) -> None:
    request_of(file).enum_type[0].value[1].number = 2


def add_restart_policy(file: descriptor_pb2.FileDescriptorProto) -> None:
    (policy,) = (enum for enum in file.enum_type if enum.name == "JobRestartPolicy")
    policy.value.add(name="JRP_ALWAYS", number=2)


def leave_out_of_dispatch(file: descriptor_pb2.FileDescriptorProto) -> None:
    del dispatch_of(file).field[3]


def retype_a_map(file: descriptor_pb2.FileDescriptorProto) -> None:
    dispatch_of(file).nested_type[0].field[1].type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES


@pytest.mark.parametrize(
    "change",
    [
        renumber,
        rename,
        rename_in_json,
        retype,
        repeat,
        make_optional,
        leave_out,
        add,
        rename_direction,
        renumber_direction,
        add_restart_policy,
        leave_out_of_dispatch,
        retype_a_map,
    ],
)
def test_a_difference_is_seen(change: Callable[[descriptor_pb2.FileDescriptorProto], None]) -> None:
    file = descriptor_pb2.FileDescriptorProto()
    ours.DESCRIPTOR.CopyToProto(file)
    change(file)
    pool = DescriptorPool()
    for needed in ours.DESCRIPTOR.dependencies:
        pool.AddSerializedFile(needed.serialized_pb)
    pool.Add(file)
    changed = pool.FindMessageTypeByName("connector.v1.ConnectTwilioCallRequest")
    assert differences(changed, described(connector_twilio.ConnectTwilioCallRequest)) != []
