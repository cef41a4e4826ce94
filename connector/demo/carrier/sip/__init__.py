"""The carrier's SIP side: what `<Dial><Sip>` sends over UDP, and what it makes of the answers."""

from connector.demo.carrier.sip.client import SipClient
from connector.demo.carrier.sip.leg import SipLeg, SipOutcome, SipTimers

__all__ = ["SipClient", "SipLeg", "SipOutcome", "SipTimers"]
