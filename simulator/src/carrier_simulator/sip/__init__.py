"""The carrier's SIP side: what `<Dial><Sip>` sends over UDP, and what it makes of the answers."""

from carrier_simulator.sip.client import SipClient
from carrier_simulator.sip.leg import SipLeg, SipOutcome, SipTimers

__all__ = ["SipClient", "SipLeg", "SipOutcome", "SipTimers"]
