"""The carrier's SIP side: the requests that `<Dial><Sip>` sends over UDP, and its reactions to the answers."""

from carrier_simulator.sip.client import SipClient
from carrier_simulator.sip.leg import SipLeg, SipOutcome, SipTimers

__all__ = ["SipClient", "SipLeg", "SipOutcome", "SipTimers"]
