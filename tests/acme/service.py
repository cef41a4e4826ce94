"""`python -m tests.acme.service`: the connector with one more line in its table."""

from __future__ import annotations

import asyncio

from tests.acme.name import show_to_pydantic

show_to_pydantic()

from connector.carrier_table import TABLE, Entry  # noqa: E402
from connector.logs import configure_logging  # noqa: E402
from connector.serve import serve  # noqa: E402 - the name has to be known first
from tests.acme.carrier import Acme, AcmeSettings  # noqa: E402

if __name__ == "__main__":
    configure_logging("info")
    asyncio.run(serve(AcmeSettings.model_validate({}), (*TABLE, Entry(Acme, "tests.acme.rest"))))
