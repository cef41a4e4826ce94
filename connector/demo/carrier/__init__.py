"""Strict simulators of the carriers: REST API, XML documents, webhooks, media streams, telephones."""

from connector.demo.carrier.call import PhoneCall
from connector.demo.carrier.directions import InboundCall, OutboundCall
from connector.demo.carrier.faults import CarrierError, Fault
from connector.demo.carrier.moments import Moment
from connector.demo.carrier.plivo.simulator import PlivoSimulator
from connector.demo.carrier.simulator import CarrierSimulator
from connector.demo.carrier.stream import MediaStream
from connector.demo.carrier.telnyx.simulator import TelnyxSimulator
from connector.demo.carrier.terms import Answer, Callback, CallOptions, CallStatus, Document, Outcome
from connector.demo.carrier.twilio.simulator import TwilioSimulator

__all__ = [
    "Answer",
    "CallOptions",
    "CallStatus",
    "Callback",
    "CarrierError",
    "CarrierSimulator",
    "Document",
    "Fault",
    "InboundCall",
    "MediaStream",
    "Moment",
    "OutboundCall",
    "Outcome",
    "PhoneCall",
    "PlivoSimulator",
    "TelnyxSimulator",
    "TwilioSimulator",
]
