"""The domain model: calls, end reasons, rules, connectors, webhooks, and the documents in the store."""

# Old import paths, for branches that are not yet rebased; removed when these have landed.
from connector.model.call import LIVE_STATES as LIVE_STATES
from connector.model.call import NOT_REACHED as NOT_REACHED
from connector.model.call import AgentDispatch as AgentDispatch
from connector.model.call import AgentWatch as AgentWatch
from connector.model.call import CallFilter as CallFilter
from connector.model.call import CallRecord as CallRecord
from connector.model.call import CallRequest as CallRequest
from connector.model.call import CallState as CallState
from connector.model.call import CarrierCall as CarrierCall
from connector.model.call import Direction as Direction
from connector.model.call import HangUp as HangUp
from connector.model.call import ParticipantSpec as ParticipantSpec
from connector.model.call import Transfer as Transfer
from connector.model.call import TransferStatus as TransferStatus
from connector.model.call import WaitingCall as WaitingCall
from connector.model.call import new_call_id as new_call_id
from connector.model.connector import ConnectorEntry as ConnectorEntry
from connector.model.connector import ConnectorMode as ConnectorMode
from connector.model.connector import SipNumber as SipNumber
from connector.model.end_reason import EndReason as EndReason
from connector.model.provider import Provider as Provider
from connector.model.rule import PinLock as PinLock
from connector.model.rule import RoomPrefix as RoomPrefix
from connector.model.rule import RoomType as RoomType
from connector.model.rule import RoutingRule as RoutingRule
from connector.model.rule import RuleRoom as RuleRoom
from connector.model.rule import RuleType as RuleType
from connector.model.webhook import Attempt as Attempt
from connector.model.webhook import Delivery as Delivery
from connector.model.webhook import LifecycleEvent as LifecycleEvent
from connector.model.webhook import SigningKey as SigningKey
from connector.model.webhook import WebhookEndpoint as WebhookEndpoint
