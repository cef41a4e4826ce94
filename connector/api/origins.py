"""Which of the connector's public origins a carrier is sent to.

A region is a name for an origin (a load balancer near the carrier's media servers, say), a country a name for a region.
All of them lead to this service, which cannot know by which one a request came in: proxies change the host.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

log = structlog.get_logger()


class Origins:
    """`default` and the values of `regions` are origins without a trailing slash; `countries` (ISO 3166-1 alpha-2)
    name regions."""

    def __init__(self, default: str, regions: Mapping[str, str], countries: Mapping[str, str]) -> None:
        self.default = default
        self._regions = dict(regions)
        self._countries = {country.upper(): region for country, region in countries.items()}

    @property
    def every(self) -> tuple[str, ...]:
        """Each once, the default first: what a carrier signed holds one of them."""
        return tuple(dict.fromkeys((self.default, *self._regions.values())))

    def region(self, region: str, country: str) -> str:
        """The region that counts: the one that was asked for, else the country's; empty for the default origin. One
        that is not configured is logged, for then its calls go where nobody meant them to."""
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
        """The origin of `region`."""
        return self._regions.get(self.region(region, country), self.default)
