"""Plivo's XML. https://www.plivo.com/docs/voice/xml"""

from __future__ import annotations

from typing import Literal

from connector.carriers.carrier import PIN_TIMEOUT
from connector.carriers.resume_url import resume_url
from connector.carriers.transfers import TransferDial
from connector.carriers.xml import child, document, response, spoken

ContentType = Literal["audio/x-mulaw;rate=8000", "audio/x-l16;rate=8000", "audio/x-l16;rate=16000"]


def stream_answer(url: str, sentence: str, content_type: ContentType) -> str:
    """With `keepCallAlive`, Plivo continues in the document when the stream has ended: it asks us how the call goes on.
    https://www.plivo.com/docs/voice/xml/audio-streaming"""
    root = response()
    spoken(root, "Speak", sentence)
    child(root, "Stream", url, bidirectional="true", keepCallAlive="true", contentType=content_type)
    child(root, "Redirect", resume_url(url), method="POST")
    return document(root)


def hold(url: str, seconds: int) -> str:
    """https://www.plivo.com/docs/voice/xml/wait"""
    root = response()
    child(root, "Wait", length=str(seconds))
    child(root, "Redirect", url, method="POST")
    return document(root)


def refusal(sentence: str) -> str:
    root = response()
    spoken(root, "Speak", sentence)
    child(root, "Hangup")
    return document(root)


def reject() -> str:
    """https://www.plivo.com/docs/voice/xml/hangup"""
    root = response()
    child(root, "Hangup", reason="rejected")
    return document(root)


def ask_pin(action_url: str, prompt: str, digits: int) -> str:
    root = response()
    question = child(
        root,
        "GetInput",
        action=action_url,
        method="POST",
        inputType="dtmf",
        numDigits=str(digits),
        finishOnKey="#",
        executionTimeout=str(2 * PIN_TIMEOUT),
        digitEndTimeout=str(PIN_TIMEOUT),
        redirect="true",
        log="false",
    )
    spoken(question, "Speak", prompt)
    # If no key was pressed, the carrier continues here instead of requesting the action URL.
    child(root, "Redirect", action_url, method="POST")
    return document(root)


def transfer_document(dial: TransferDial) -> str:
    """https://www.plivo.com/docs/voice/xml/dial"""
    root = response()
    options = {"action": dial.action, "method": "POST" if dial.action else ""}
    options |= {"timeout": str(dial.timeout), "callerId": dial.caller_id}
    if dial.progress:
        options |= {"callbackUrl": dial.progress, "callbackMethod": "POST"}
    verb = child(root, "Dial", **{name: value for name, value in options.items() if value})
    child(verb, "Number", dial.number)
    return document(root)
