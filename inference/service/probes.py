"""Routes for the people and programs that run the service: health, readiness, metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from inference.service import schemas
from inference.service.door.refusals import json_response
from inference.service.openapi import PROBLEMS
from inference.service.state import state_of

router = APIRouter()
guarded = APIRouter()
MISTAKES = {422: PROBLEMS[422]}


@router.get("/healthz", response_model=schemas.Health, responses=MISTAKES)
async def healthz() -> Response:
    """Says that the process answers. Needs no key."""
    return json_response({"status": "ok"})


@router.get("/readyz", response_model=schemas.Health, responses=MISTAKES | {503: PROBLEMS[503]})
async def readyz(request: Request) -> Response:
    """Says whether the service has a model and can answer. Needs no key."""
    state_of(request).champion.now()
    return json_response({"status": "ok"})


@guarded.get(
    "/metrics",
    responses=MISTAKES | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: PROBLEMS[401]},
    response_class=Response,
)
async def metrics(request: Request) -> Response:
    """Returns metrics of requests, latencies, batches, decoders and the model, for Prometheus."""
    counters = state_of(request).counters
    return Response(generate_latest(counters.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
