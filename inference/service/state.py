"""What the routes share."""

from dataclasses import dataclass

from starlette.requests import Request

from conf.settings import Serving
from inference.service.door.capacity import Capacity
from inference.service.door.counters import Counters
from inference.service.engine.champion import Champion
from inference.service.engine.decoding import Decoders


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
