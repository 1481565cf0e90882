"""What the routes share."""

from dataclasses import dataclass

from starlette.requests import Request

from conf.settings import Serving
from inference.service.capacity import Capacity
from inference.service.champion import Champion
from inference.service.counters import Counters
from inference.service.decoding import Decoders


@dataclass(frozen=True)
class State:
    """One running service."""

    settings: Serving
    champion: Champion
    decoders: Decoders
    capacity: Capacity
    counters: Counters


def state_of(request: Request) -> State:
    return request.app.state.service
