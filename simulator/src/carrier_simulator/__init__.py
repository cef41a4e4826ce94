"""Strict simulators of the carriers: REST API, XML documents, webhooks, media streams, telephones."""

from carrier_simulator.call import PhoneCall
from carrier_simulator.directions import InboundCall, OutboundCall
from carrier_simulator.faults import CarrierError, Fault
from carrier_simulator.jitter import Jitter
from carrier_simulator.moments import Moment
from carrier_simulator.plivo.simulator import PlivoSimulator
from carrier_simulator.simulator import CarrierSimulator
from carrier_simulator.stream import MediaStream
from carrier_simulator.telnyx.simulator import TelnyxSimulator
from carrier_simulator.terms import Answer, Callback, CallOptions, CallStatus, Document, Outcome
from carrier_simulator.twilio.simulator import TwilioSimulator

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
    "Jitter",
    "MediaStream",
    "Moment",
    "OutboundCall",
    "Outcome",
    "PhoneCall",
    "PlivoSimulator",
    "TelnyxSimulator",
    "TwilioSimulator",
]
