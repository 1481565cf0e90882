"""The service as one ASGI app, which starts and stops its parts."""

import asyncio
import logging
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from conf.settings import Settings
from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from inference.model.model_files import ModelFiles
from inference.service import probes, routes
from inference.service.door.capacity import Capacity
from inference.service.door.counters import Counters
from inference.service.door.guard import Guard
from inference.service.door.parameters import only_known_parameters
from inference.service.door.refusals import MAX_SHOWN, Refusal, json_response
from inference.service.door.uploads import MB
from inference.service.engine.champion import LiveChampion
from inference.service.engine.decoding import DecoderPool
from inference.service.openapi import KEY
from inference.service.state import ServiceState

log = logging.getLogger("chexscale.service")

PAGE = Path(__file__).parent / "page"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# If an MLflow server does not answer within this time, the service starts without a model and says so.
FIRST_LOOK_S = 20
SEE_API = "see /openapi.json for all routes and parameters"
METHOD_NOT_ALLOWED = 405


class Service(Guard):
    """The guarded app."""

    upload_s: float
    """seconds within which a whole request must have arrived"""

    def greeting(self, address: str) -> str:
        """Returns what the console says once the service listens at `address`."""
        champion = self.app.state.service.champion
        if champion.served is None:
            return f"Serving no model yet ({champion.registry.reason}) at {address}; {champion.picked_up}"
        model = champion.served.model
        return (
            f"Serving {model.files.title}, {model.mode}. {RESEARCH_USE}\n"
            f"Next: open {address}, or `curl -F files=@FILE {address}/v1/predict`"
        )


def create_app(
    settings: Settings,
    workspace: Workspace,
    key: str = "",
    watch: subprocess.Popen | None = None,
    package: ModelFiles | None = None,
) -> Service:
    """Builds the service.

    key: the API key that callers must send; empty: none is needed. watch, package: see LiveChampion.
    """
    counters = Counters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        champion = LiveChampion(settings, workspace, counters, watch, package)
        state = app.state.service = _start_state(settings, counters, champion)
        await state.decoders.start()
        following = asyncio.create_task(state.champion.follow())
        looked = asyncio.create_task(state.champion.looked.wait())
        await asyncio.wait([following, looked], timeout=FIRST_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        yield
        for task in (following, looked):
            task.cancel()
        await asyncio.gather(following, looked, return_exceptions=True)
        await state.decoders.stop()

    app = FastAPI(
        title="CheXScale",
        version="1",
        description=f"Findings of chest radiographs. **{RESEARCH_USE}**",
        lifespan=lifespan,
        # These pages would load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        # Behind a TLS proxy, redirects would lead to plain HTTP.
        redirect_slashes=False,
        # Nothing that a caller sends leaves the service, whatever the environment says.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    strict = [Depends(only_known_parameters)]
    secured = [*strict, Security(KEY)] if key else strict
    app.include_router(routes.router, dependencies=secured)
    app.include_router(probes.router, dependencies=strict)
    app.include_router(probes.guarded, dependencies=secured)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE, check_dir=False))
    for kind, handler in (
        (Refusal, _refuse),
        (HTTPException, _http_problem),
        (RequestValidationError, _invalid),
        (Exception, _fail),
    ):
        app.add_exception_handler(kind, handler)
    hosts = (*LOCAL_HOSTS, settings.serving.host, *settings.serving.allowed_hosts)
    service = Service(app, hosts, key, settings.serving.requests_per_minute, counters)
    service.upload_s = settings.serving.upload_s
    return service


def _start_state(settings: Settings, counters: Counters, champion: LiveChampion) -> ServiceState:
    serving = settings.serving
    capacity = Capacity(serving.max_waiting, int(serving.max_waiting_mb * MB))
    counters.waiting.set_function(lambda: capacity.files)
    decoders = DecoderPool(
        serving.num_decoders or len(os.sched_getaffinity(0)) + 1,
        int(serving.max_file_mb * MB),
        serving.decode_mb,
        serving.decode_s,
        counters,
    )
    return ServiceState(serving, champion, decoders, capacity, counters)


async def _page() -> Response:
    return FileResponse(PAGE / "index.html")


async def _refuse(request: Request, refusal: Refusal) -> Response:
    return refusal.response()


async def _http_problem(request: Request, problem: HTTPException) -> Response:
    """Answers unknown routes and methods."""
    if problem.status_code != METHOD_NOT_ALLOWED:
        return json_response({"error": problem.detail, "next": SEE_API}, problem.status_code, problem.headers)
    methods = set(problem.headers["Allow"].split(", "))
    # guard.py lets HEAD be answered wherever GET is.
    allowed = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
    error = f"{request.method[:MAX_SHOWN]} is not a method of this address"
    step = f"use {allowed}; {SEE_API}"
    return json_response({"error": error, "next": step}, problem.status_code, {"Allow": allowed})


async def _invalid(request: Request, invalid: RequestValidationError) -> Response:
    first = invalid.errors()[0]
    return json_response({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "next": SEE_API}, 422)


async def _fail(request: Request, error: Exception) -> Response:
    """Answers after a bug; guard.py logs its place."""
    return json_response({"error": "the service failed on this request", "next": "look at the service's log"}, 500)
