from __future__ import annotations

import pytest

from connector.carriers.resume_url import resume_url


@pytest.mark.parametrize(
    ("stream_url", "resume"),
    [
        ("wss://calls.example.com/twilio/AQ-_x", "https://calls.example.com/twilio/AQ-_x/resume"),
        ("wss://calls.example.com/telnyx?ref=AQ-_x", "https://calls.example.com/telnyx/AQ-_x/resume"),
        ("wss://calls.example.com:8443/plivo?ref=AQ-_x", "https://calls.example.com:8443/plivo/AQ-_x/resume"),
        ("ws://127.0.0.1:8080/twilio/AQ-_x", "http://127.0.0.1:8080/twilio/AQ-_x/resume"),
        ("ws://[::1]:8080/plivo?ref=AQ-_x", "http://[::1]:8080/plivo/AQ-_x/resume"),
        # The connect_url as it is fetched.
        ("https://calls.example.com/twilio/AQ-_x", "https://calls.example.com/twilio/AQ-_x/resume"),
    ],
)
def test_the_resume_url_follows_from_the_streams(stream_url: str, resume: str) -> None:
    assert resume_url(stream_url) == resume
