import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_DIRECTION_INBOUND: _ClassVar[CallDirection]
    CALL_DIRECTION_OUTBOUND: _ClassVar[CallDirection]

class JobRestartPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JRP_ON_FAILURE: _ClassVar[JobRestartPolicy]
    JRP_NEVER: _ClassVar[JobRestartPolicy]
CALL_DIRECTION_INBOUND: CallDirection
CALL_DIRECTION_OUTBOUND: CallDirection
JRP_ON_FAILURE: JobRestartPolicy
JRP_NEVER: JobRestartPolicy

class ConnectTwilioCallRequest(_message.Message):
    __slots__ = ("twilio_call_direction", "room_name", "agents", "participant_identity", "participant_name", "participant_metadata", "participant_attributes", "destination_country")
    class TwilioCallDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TWILIO_CALL_DIRECTION_INBOUND: _ClassVar[ConnectTwilioCallRequest.TwilioCallDirection]
        TWILIO_CALL_DIRECTION_OUTBOUND: _ClassVar[ConnectTwilioCallRequest.TwilioCallDirection]
    TWILIO_CALL_DIRECTION_INBOUND: ConnectTwilioCallRequest.TwilioCallDirection
    TWILIO_CALL_DIRECTION_OUTBOUND: ConnectTwilioCallRequest.TwilioCallDirection
    class ParticipantAttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TWILIO_CALL_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_METADATA_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_COUNTRY_FIELD_NUMBER: _ClassVar[int]
    twilio_call_direction: ConnectTwilioCallRequest.TwilioCallDirection
    room_name: str
    agents: _containers.RepeatedCompositeFieldContainer[RoomAgentDispatch]
    participant_identity: str
    participant_name: str
    participant_metadata: str
    participant_attributes: _containers.ScalarMap[str, str]
    destination_country: str
    def __init__(self, twilio_call_direction: _Optional[_Union[ConnectTwilioCallRequest.TwilioCallDirection, str]] = ..., room_name: _Optional[str] = ..., agents: _Optional[_Iterable[_Union[RoomAgentDispatch, _Mapping]]] = ..., participant_identity: _Optional[str] = ..., participant_name: _Optional[str] = ..., participant_metadata: _Optional[str] = ..., participant_attributes: _Optional[_Mapping[str, str]] = ..., destination_country: _Optional[str] = ...) -> None: ...

class ConnectTwilioCallResponse(_message.Message):
    __slots__ = ("connect_url",)
    CONNECT_URL_FIELD_NUMBER: _ClassVar[int]
    connect_url: str
    def __init__(self, connect_url: _Optional[str] = ...) -> None: ...

class ConnectTelnyxCallRequest(_message.Message):
    __slots__ = ("direction", "room_name", "agents", "participant_identity", "participant_name", "participant_metadata", "participant_attributes", "destination_country")
    class ParticipantAttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_METADATA_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_COUNTRY_FIELD_NUMBER: _ClassVar[int]
    direction: CallDirection
    room_name: str
    agents: _containers.RepeatedCompositeFieldContainer[RoomAgentDispatch]
    participant_identity: str
    participant_name: str
    participant_metadata: str
    participant_attributes: _containers.ScalarMap[str, str]
    destination_country: str
    def __init__(self, direction: _Optional[_Union[CallDirection, str]] = ..., room_name: _Optional[str] = ..., agents: _Optional[_Iterable[_Union[RoomAgentDispatch, _Mapping]]] = ..., participant_identity: _Optional[str] = ..., participant_name: _Optional[str] = ..., participant_metadata: _Optional[str] = ..., participant_attributes: _Optional[_Mapping[str, str]] = ..., destination_country: _Optional[str] = ...) -> None: ...

class ConnectTelnyxCallResponse(_message.Message):
    __slots__ = ("connect_url",)
    CONNECT_URL_FIELD_NUMBER: _ClassVar[int]
    connect_url: str
    def __init__(self, connect_url: _Optional[str] = ...) -> None: ...

class ConnectPlivoCallRequest(_message.Message):
    __slots__ = ("direction", "room_name", "agents", "participant_identity", "participant_name", "participant_metadata", "participant_attributes", "destination_country")
    class ParticipantAttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_METADATA_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_COUNTRY_FIELD_NUMBER: _ClassVar[int]
    direction: CallDirection
    room_name: str
    agents: _containers.RepeatedCompositeFieldContainer[RoomAgentDispatch]
    participant_identity: str
    participant_name: str
    participant_metadata: str
    participant_attributes: _containers.ScalarMap[str, str]
    destination_country: str
    def __init__(self, direction: _Optional[_Union[CallDirection, str]] = ..., room_name: _Optional[str] = ..., agents: _Optional[_Iterable[_Union[RoomAgentDispatch, _Mapping]]] = ..., participant_identity: _Optional[str] = ..., participant_name: _Optional[str] = ..., participant_metadata: _Optional[str] = ..., participant_attributes: _Optional[_Mapping[str, str]] = ..., destination_country: _Optional[str] = ...) -> None: ...

class ConnectPlivoCallResponse(_message.Message):
    __slots__ = ("connect_url",)
    CONNECT_URL_FIELD_NUMBER: _ClassVar[int]
    connect_url: str
    def __init__(self, connect_url: _Optional[str] = ...) -> None: ...

class RoomAgentDispatch(_message.Message):
    __slots__ = ("agent_name", "metadata", "restart_policy", "deployment", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RESTART_POLICY_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    agent_name: str
    metadata: str
    restart_policy: JobRestartPolicy
    deployment: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, agent_name: _Optional[str] = ..., metadata: _Optional[str] = ..., restart_policy: _Optional[_Union[JobRestartPolicy, str]] = ..., deployment: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PlaceTwilioCallRequest(_message.Message):
    __slots__ = ("to", "room_name", "agents", "participant_identity", "participant_name", "participant_metadata", "participant_attributes", "destination_country", "ring_timeout_seconds", "wait_until_answered")
    class ParticipantAttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TO_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_METADATA_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_COUNTRY_FIELD_NUMBER: _ClassVar[int]
    RING_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WAIT_UNTIL_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    to: str
    room_name: str
    agents: _containers.RepeatedCompositeFieldContainer[RoomAgentDispatch]
    participant_identity: str
    participant_name: str
    participant_metadata: str
    participant_attributes: _containers.ScalarMap[str, str]
    destination_country: str
    ring_timeout_seconds: int
    wait_until_answered: bool
    def __init__(self, to: _Optional[str] = ..., room_name: _Optional[str] = ..., agents: _Optional[_Iterable[_Union[RoomAgentDispatch, _Mapping]]] = ..., participant_identity: _Optional[str] = ..., participant_name: _Optional[str] = ..., participant_metadata: _Optional[str] = ..., participant_attributes: _Optional[_Mapping[str, str]] = ..., destination_country: _Optional[str] = ..., ring_timeout_seconds: _Optional[int] = ..., wait_until_answered: _Optional[bool] = ..., **kwargs) -> None: ...

class PlaceTwilioCallResponse(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: Call
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("call_id", "provider", "direction", "state", "room_name", "participant_identity", "carrier_call_id", "carrier_status", "to", "created_at", "started_at", "ended_at", "end_reason", "end_detail", "transfer_to", "transfer_status", "resume_url")
    class Provider(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PROVIDER_UNSPECIFIED: _ClassVar[Call.Provider]
        PROVIDER_TWILIO: _ClassVar[Call.Provider]
        PROVIDER_TELNYX: _ClassVar[Call.Provider]
        PROVIDER_PLIVO: _ClassVar[Call.Provider]
    PROVIDER_UNSPECIFIED: Call.Provider
    PROVIDER_TWILIO: Call.Provider
    PROVIDER_TELNYX: Call.Provider
    PROVIDER_PLIVO: Call.Provider
    class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DIRECTION_UNSPECIFIED: _ClassVar[Call.Direction]
        DIRECTION_INBOUND: _ClassVar[Call.Direction]
        DIRECTION_OUTBOUND: _ClassVar[Call.Direction]
    DIRECTION_UNSPECIFIED: Call.Direction
    DIRECTION_INBOUND: Call.Direction
    DIRECTION_OUTBOUND: Call.Direction
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Call.State]
        STATE_PENDING: _ClassVar[Call.State]
        STATE_RINGING: _ClassVar[Call.State]
        STATE_ACTIVE: _ClassVar[Call.State]
        STATE_ENDED: _ClassVar[Call.State]
    STATE_UNSPECIFIED: Call.State
    STATE_PENDING: Call.State
    STATE_RINGING: Call.State
    STATE_ACTIVE: Call.State
    STATE_ENDED: Call.State
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    CARRIER_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CARRIER_STATUS_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    END_DETAIL_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_TO_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_STATUS_FIELD_NUMBER: _ClassVar[int]
    RESUME_URL_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    provider: Call.Provider
    direction: Call.Direction
    state: Call.State
    room_name: str
    participant_identity: str
    carrier_call_id: str
    carrier_status: str
    to: str
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    end_reason: str
    end_detail: str
    transfer_to: str
    transfer_status: str
    resume_url: str
    def __init__(self, call_id: _Optional[str] = ..., provider: _Optional[_Union[Call.Provider, str]] = ..., direction: _Optional[_Union[Call.Direction, str]] = ..., state: _Optional[_Union[Call.State, str]] = ..., room_name: _Optional[str] = ..., participant_identity: _Optional[str] = ..., carrier_call_id: _Optional[str] = ..., carrier_status: _Optional[str] = ..., to: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_reason: _Optional[str] = ..., end_detail: _Optional[str] = ..., transfer_to: _Optional[str] = ..., transfer_status: _Optional[str] = ..., resume_url: _Optional[str] = ..., **kwargs) -> None: ...

class ListCallsRequest(_message.Message):
    __slots__ = ("room_name", "state", "provider", "created_after", "created_before", "page_size", "page_token")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    CREATED_AFTER_FIELD_NUMBER: _ClassVar[int]
    CREATED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    state: Call.State
    provider: Call.Provider
    created_after: _timestamp_pb2.Timestamp
    created_before: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, room_name: _Optional[str] = ..., state: _Optional[_Union[Call.State, str]] = ..., provider: _Optional[_Union[Call.Provider, str]] = ..., created_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCallsResponse(_message.Message):
    __slots__ = ("calls", "next_page_token")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    next_page_token: str
    def __init__(self, calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetCallRequest(_message.Message):
    __slots__ = ("call_id",)
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    def __init__(self, call_id: _Optional[str] = ...) -> None: ...

class GetCallResponse(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: Call
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ...) -> None: ...

class EndCallRequest(_message.Message):
    __slots__ = ("call_id",)
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    def __init__(self, call_id: _Optional[str] = ...) -> None: ...

class EndCallResponse(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: Call
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ...) -> None: ...

class SendDtmfRequest(_message.Message):
    __slots__ = ("call_id", "digits")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    DIGITS_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    digits: str
    def __init__(self, call_id: _Optional[str] = ..., digits: _Optional[str] = ...) -> None: ...

class SendDtmfResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearAudioRequest(_message.Message):
    __slots__ = ("call_id",)
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    def __init__(self, call_id: _Optional[str] = ...) -> None: ...

class ClearAudioResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SwitchRoomRequest(_message.Message):
    __slots__ = ("call_id", "room_name", "agents")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    room_name: str
    agents: _containers.RepeatedCompositeFieldContainer[RoomAgentDispatch]
    def __init__(self, call_id: _Optional[str] = ..., room_name: _Optional[str] = ..., agents: _Optional[_Iterable[_Union[RoomAgentDispatch, _Mapping]]] = ...) -> None: ...

class SwitchRoomResponse(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: Call
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ...) -> None: ...

class TransferCallRequest(_message.Message):
    __slots__ = ("call_id", "to", "timeout", "caller_id", "failure_sentence", "wait_until_answered")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CALLER_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_SENTENCE_FIELD_NUMBER: _ClassVar[int]
    WAIT_UNTIL_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    to: str
    timeout: int
    caller_id: str
    failure_sentence: str
    wait_until_answered: bool
    def __init__(self, call_id: _Optional[str] = ..., to: _Optional[str] = ..., timeout: _Optional[int] = ..., caller_id: _Optional[str] = ..., failure_sentence: _Optional[str] = ..., wait_until_answered: _Optional[bool] = ...) -> None: ...

class TransferCallResponse(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: Call
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ...) -> None: ...

class BridgeTwilioConferenceRequest(_message.Message):
    __slots__ = ("conference_sid", "number")
    CONFERENCE_SID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    conference_sid: str
    number: str
    def __init__(self, conference_sid: _Optional[str] = ..., number: _Optional[str] = ..., **kwargs) -> None: ...

class BridgeTwilioConferenceResponse(_message.Message):
    __slots__ = ("call_sid", "added")
    CALL_SID_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    call_sid: str
    added: bool
    def __init__(self, call_sid: _Optional[str] = ..., added: _Optional[bool] = ...) -> None: ...

class UnbridgeTwilioConferenceRequest(_message.Message):
    __slots__ = ("conference_sid",)
    CONFERENCE_SID_FIELD_NUMBER: _ClassVar[int]
    conference_sid: str
    def __init__(self, conference_sid: _Optional[str] = ...) -> None: ...

class UnbridgeTwilioConferenceResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    def __init__(self, removed: _Optional[bool] = ...) -> None: ...
