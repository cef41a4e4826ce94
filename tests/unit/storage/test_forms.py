"""A stored document that cannot be read must not be quoted: there are keys and numbers in it."""

from __future__ import annotations

import pytest

from connector.model.webhook import SigningKey
from connector.storage.base import StoreError
from connector.storage.json_form import Form


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"id": "key_1", "private_pem": ["SECRET"], "created_at": 1.0}', "private_pem"),
        ('{"private_pem": "SECRET", "created_at": 1.0}', "id"),
        ("SECRET", "not a JSON object"),
    ],
)
def test_what_is_wrong_is_told_and_not_what_stands_there(text: str, what: str) -> None:
    with pytest.raises(StoreError) as caught:
        Form(SigningKey).read(text)
    assert "SigningKey" in caught.value.message
    assert what in caught.value.message
    assert "SECRET" not in caught.value.message
    assert caught.value.__cause__ is None


def test_fields_of_a_newer_connector_are_passed_over() -> None:
    key = SigningKey("key_1", "pem", 1.0)
    assert Form(SigningKey).read(Form(SigningKey).write(key).replace("{", '{"colour": "blue", ', 1)) == key
