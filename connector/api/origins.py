"""Chooses the public origin of this service for a call.

A region is the name of an origin (for example, a load balancer near the carrier's media servers); a country is mapped
to a region. All origins lead to this service. It cannot know which origin a request used: proxies change the host.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

log = structlog.get_logger()


class Origins:
    """`default` and the values of `regions` are origins without a trailing slash. `countries`: ISO 3166-1 alpha-2 code
    -> region."""

    def __init__(self, default: str, regions: Mapping[str, str], countries: Mapping[str, str]) -> None:
        self.default = default
        self._regions = dict(regions)
        self._countries = {country.upper(): region for country, region in countries.items()}

    @property
    def every(self) -> tuple[str, ...]:
        """All origins without duplicates, the default first; the URL that a carrier signed has one of them."""
        return tuple(dict.fromkeys((self.default, *self._regions.values())))

    def region(self, region: str, country: str) -> str:
        """Returns the requested region, else the country's region; empty: the default origin. A warning is logged if
        the requested region is not configured, because its calls then use an unintended origin."""
        if region:
            if region in self._regions:
                return region
            log.warning("region is not configured: the default origin serves it", region=region)
            return ""
        found = self._countries.get(country.upper(), "")
        if country and not found and self._countries:
            log.info("country has no region: the default origin serves it", country=country)
        return found

    def pick(self, region: str, country: str = "") -> str:
        """Returns the origin for `region`, else for `country`."""
        return self._regions.get(self.region(region, country), self.default)
