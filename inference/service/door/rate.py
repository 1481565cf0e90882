"""Limits how often one client may ask: a token bucket per address (Turner 1986, IEEE Communications 24(10):8-15)."""

import ipaddress
import math
import time
from functools import lru_cache

# Once this many clients are known, those that have not asked for a minute are forgotten.
MAX_CLIENTS = 10_000


class RateLimit:
    """Lets a client send a minute's requests at once, and afterwards one every 60 / per_minute seconds."""

    def __init__(self, per_minute: int):
        """per_minute: 0 means no limit."""
        self.per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str, now: float | None = None) -> int:
        """Returns 0 if the client may ask now, otherwise the whole seconds until it may. now: seconds, for tests."""
        if not self.per_minute:
            return 0
        now = time.monotonic() if now is None else now
        client = _network(client)
        tokens, at = self._buckets.get(client, (self.per_minute, now))
        tokens = min(self.per_minute, tokens + (now - at) * self.per_minute / 60)
        allowed = tokens >= 1
        if client not in self._buckets and len(self._buckets) >= MAX_CLIENTS:
            self._buckets = {known: bucket for known, bucket in self._buckets.items() if now - bucket[1] < 60}
        self._buckets[client] = (tokens - allowed, now)
        return 0 if allowed else math.ceil((1 - tokens) * 60 / self.per_minute)


@lru_cache(1024)
def _network(client: str) -> str:
    """Returns the address or network that counts as one client.

    An IPv6 client has 2^64 addresses of its own, which count as one; an IPv4 address may be written as IPv6.
    """
    if ":" not in client:
        return client
    address = ipaddress.IPv6Address(client.partition("%")[0])
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
