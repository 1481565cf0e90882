"""The parts of the service that its routes share."""

from dataclasses import dataclass

from starlette.requests import Request

from conf.settings import Serving
from inference.service.door.capacity import Capacity
from inference.service.door.counters import Counters
from inference.service.engine.champion import LiveChampion
from inference.service.engine.decoding import DecoderPool


@dataclass(frozen=True)
class ServiceState:
    """The parts of one running service."""

    settings: Serving
    champion: LiveChampion
    decoders: DecoderPool
    capacity: Capacity
    counters: Counters


def state_of(request: Request) -> ServiceState:
    return request.app.state.service
