"""The verbs common to TwiML and TeXML, which is modelled on TwiML."""

from __future__ import annotations

from connector.carriers.transfers import TransferDial
from connector.carriers.xml import Element, child, document, response, spoken


def say(parent: Element, text: str) -> None:
    spoken(parent, "Say", text)


def refusal(text: str) -> str:
    """Says a sentence and hangs up."""
    root = response()
    say(root, text)
    child(root, "Hangup")
    return document(root)


def hold(url: str, seconds: int) -> str:
    """Keeps the phone on the line, then requests `url`."""
    root = response()
    child(root, "Pause", length=str(seconds))
    way_back(root, url)
    return document(root)


def way_back(root: Element, url: str) -> None:
    """Requests `url` after the verbs before it."""
    child(root, "Redirect", url, method="POST")


def reject() -> str:
    root = response()
    child(root, "Reject", reason="rejected")
    return document(root)


def gather(root: Element, action_url: str, prompt: str, digits: int, timeout: int, **more: str) -> None:
    """Asks for keys; `#` ends the input early."""
    question = child(
        root,
        "Gather",
        action=action_url,
        method="POST",
        input="dtmf",
        numDigits=str(digits),
        finishOnKey="#",
        timeout=str(timeout),
        **more,
    )
    say(question, prompt)


def transfer_document(dial: TransferDial) -> str:
    """Dials a number. When one side hangs up, the other side is hung up too."""
    root = response()
    options = {"action": dial.action, "method": "POST" if dial.action else ""}
    options |= {"timeout": str(dial.timeout), "callerId": dial.caller_id}
    number: dict[str, str] = {}
    if dial.progress:
        number = {
            "statusCallback": dial.progress,
            "statusCallbackMethod": "POST",
            "statusCallbackEvent": "ringing answered",
        }
    verb = child(root, "Dial", **{name: value for name, value in options.items() if value})
    child(verb, "Number", dial.number, **number)
    if not dial.action:
        # Without an action URL the carrier continues in this document after the dialled number has hung up.
        child(root, "Hangup")
    return document(root)
