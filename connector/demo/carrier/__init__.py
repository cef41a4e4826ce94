"""A strict simulator of the carrier (Twilio): REST API, TwiML, webhooks, media streams, telephones."""

from connector.demo.carrier.call import PhoneCall
from connector.demo.carrier.directions import InboundCall, OutboundCall
from connector.demo.carrier.faults import CarrierError, Fault
from connector.demo.carrier.moments import Moment
from connector.demo.carrier.simulator import TwilioSimulator
from connector.demo.carrier.stream import MediaStream
from connector.demo.carrier.terms import Answer, Callback, CallOptions, CallStatus, Document, Outcome

__all__ = [
    "Answer",
    "CallOptions",
    "CallStatus",
    "Callback",
    "CarrierError",
    "Document",
    "Fault",
    "InboundCall",
    "MediaStream",
    "Moment",
    "OutboundCall",
    "Outcome",
    "PhoneCall",
    "TwilioSimulator",
]
