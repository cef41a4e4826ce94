"""TwiML that answers a call. https://www.twilio.com/docs/voice/twiml"""

from __future__ import annotations

from connector.carriers.carrier import PIN_TIMEOUT
from connector.carriers.resume_url import resume_url
from connector.carriers.twiml import gather, say, way_back
from connector.carriers.xml import child, document, response


def stream_answer(url: str, sentence: str) -> str:
    """Twilio removes a query string, so the URL must have none. When the stream has ended, Twilio asks us how the call
    goes on."""
    root = response()
    say(root, sentence)
    child(child(root, "Connect"), "Stream", url=url)
    way_back(root, resume_url(url))
    return document(root)


def ask_pin(action_url: str, prompt: str, digits: int) -> str:
    root = response()
    gather(root, action_url, prompt, digits, PIN_TIMEOUT, actionOnEmptyResult="true")
    return document(root)
