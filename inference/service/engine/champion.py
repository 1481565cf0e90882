"""The model in use: follows the registry's champion, opens a new one beside the old, keeps the old if that fails.

A package stays the model in use; no registry is asked then.
"""

import asyncio
import json
import logging
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from conf.settings import Settings
from conf.workspace import Workspace
from inference.model.model_files import ModelFiles
from inference.service.door.counters import Counters
from inference.service.door.refusals import Refusal
from inference.service.engine.batching import Batcher
from inference.service.engine.model import OpenModel, open_model
from inference.service.engine.watch import Look, start_watch

log = logging.getLogger("chexscale.service")

# Added to the time between two looks, for mlflow's import and its wait for a server.
MAX_LOOK_S = 60
# A model on a server comes over the network, and from the start again if the transfer was cut off.
MAX_FETCH_S = 3600
# Longest pause between two attempts to open the same champion; the cause, such as a lack of memory, may pass.
MAX_PAUSE_S = 300
NOT_ASKED = "the registry was not asked"
PICKED_UP = (
    "run `python inference/register.py`, or promote a version with `python inference/promote.py`; the service picks it "
    "up by itself"
)

PACKAGE_LOG = "look at the service's log, then start it with another package, or with another --serving.mode"


@dataclass(frozen=True)
class QueuedModel:
    """A model and the queue in front of it."""

    model: OpenModel
    batcher: Batcher


@dataclass(frozen=True)
class RegistryState:
    """Whether the registry answers."""

    reachable: bool
    since: str | None
    """when it stopped answering, UTC, ISO 8601; None while it answers"""
    reason: str | None
    """why no champion, or no newer one, is served; None if nothing is wrong"""


@dataclass(frozen=True)
class Failed:
    """A model that could not be opened."""

    wanted: ModelFiles
    kind: str
    """class name of the error"""
    pause_s: float
    until: float
    """when to try again, in seconds of the monotonic clock"""


class LiveChampion:
    """The model that answers now. A request calls `now()` once and keeps the result, so a swap drops no request."""

    def __init__(
        self,
        settings: Settings,
        workspace: Workspace,
        counters: Counters,
        watch: subprocess.Popen | None = None,
        package: ModelFiles | None = None,
    ):
        """watch: the process of start_watch, if it was started already. package: the model, instead of a champion."""
        self._settings, self._workspace, self._counters, self._watch = settings, workspace, counters, watch
        self._name, self._mode, self._package = settings.inference.registered_model, settings.serving.mode, package
        self.served: QueuedModel | None = None
        self.registry = RegistryState(False, _now(), "not asked yet")
        self._tested: list[dict] = []
        self._failed: Failed | None = None
        self.looked = asyncio.Event()
        """set once the registry has been asked and its champion opened"""

    def now(self) -> QueuedModel:
        """Returns the model in use. Raises Refusal (503) until there has been a champion."""
        if self.served is None:
            reason = f"there is no model yet: {self.registry.reason}"
            raise Refusal(503, reason, self.picked_up, {"Retry-After": "5"})
        return self.served

    @property
    def card(self) -> dict:
        """The card of the model in use, with the external tests that the registry knows of now, and with what its
        reference films say about this machine."""
        model = self.now().model
        of_now = {"tested_at": self._tested, "differs_here": model.differs}
        return model.card | {name: value for name, value in of_now.items() if value}

    @property
    def picked_up(self) -> str:
        """What to do while there is no model."""
        return PACKAGE_LOG if self._package else PICKED_UP

    async def follow(self) -> None:
        """Follows the champion for ever. When cancelled, it ends the watching process."""
        async for look in self._looks_at_package() if self._package else self._looks():
            if look.version is not None and not look.folder:
                if not self.looked.is_set():
                    self.registry = RegistryState(True, None, look.reason)
                continue
            reason, detail = look.reason or None, look.detail or look.reason
            if look.version is not None:
                wanted = self._package or ModelFiles(self._name, look.version, Path(look.folder))
                if not self.served or wanted != self.served.model.files:
                    await self._try(wanted)
                if self.served and wanted == self.served.model.files:
                    self._tested = look.tested
                if self._failed and wanted == self._failed.wanted:
                    what = wanted.title if self._package else f"version {look.version} is the champion, but"
                    reason = f"{what} cannot be opened in mode {self._mode}"
            self._note_look(look.reachable, reason, detail)
            self.looked.set()

    async def _try(self, wanted: ModelFiles) -> None:
        """Swaps to the wanted model, unless that failed a short time ago; the pauses double."""
        before = self._failed if self._failed and self._failed.wanted == wanted else None
        if before and time.monotonic() < before.until:
            return
        try:
            await self._swap(wanted)
            self._failed = None
        # A model may be damaged in any way; the one in use keeps answering.
        except Exception as error:
            kind = type(error).__name__
            if not before or before.kind != kind:
                log.error("version %s cannot be opened: %s: %s", wanted.version, kind, error)
            pause_s = min(2 * before.pause_s, MAX_PAUSE_S) if before else self._settings.serving.reload_s
            self._failed = Failed(wanted, kind, pause_s, time.monotonic() + pause_s)

    async def _swap(self, wanted: ModelFiles) -> None:
        model = await asyncio.to_thread(open_model, wanted, self._mode)
        batcher = Batcher(model.compute, model.num_requests, self._settings.serving.max_batch, self._counters)
        self.served = QueuedModel(model, batcher)
        self._counters.set_model(wanted.name, wanted.version, self._mode)
        log.info("%s is now in use", wanted.title)
        if model.differs:
            log.warning("%s: %s", wanted.title, model.differs)

    def _note_look(self, reachable: bool, reason: str | None, detail: str) -> None:
        before, self.registry = self.registry, RegistryState(reachable, None, reason)
        self._counters.registry_reachable.set(reachable)
        if not reachable:
            since = before.since if not before.reachable and before.since else _now()
            self.registry = RegistryState(False, since, reason)
        changed = (before.reachable, before.reason) != (reachable, reason)
        if changed and (reason or self.looked.is_set()):
            goes_on = f"; still serving version {self.served.model.files.version}" if self.served else ""
            log.warning("registry: %s%s", detail or "reachable", goes_on if reason else "")

    async def _looks_at_package(self) -> AsyncIterator[Look]:
        """Yields the package again and again, so that one that cannot be opened is tried again as a champion is."""
        while True:
            yield Look(True, self._package.version, str(self._package.folder))
            await asyncio.sleep(self._settings.serving.reload_s)

    async def _looks(self) -> AsyncIterator[Look]:
        """Yields the looks of the watching process, which is replaced if it dies, hangs or writes anything else."""
        every_s = self._settings.serving.reload_s
        while True:
            watch, self._watch = self._watch, None
            try:
                watch = watch or start_watch(self._workspace, self._name, every_s)
                lines = asyncio.StreamReader()
                await asyncio.get_running_loop().connect_read_pipe(
                    lambda lines=lines: asyncio.StreamReaderProtocol(lines), watch.stdout
                )
                limit_s = MAX_LOOK_S
                while True:
                    # Not wait_for: before Python 3.12 it loses a cancellation if a line arrives at the same moment,
                    # and the service would never end.
                    async with asyncio.timeout(every_s + limit_s):
                        line = await lines.readline()
                    if not line:
                        break
                    look = Look(**json.loads(line))
                    limit_s = MAX_FETCH_S if look.version is not None and not look.folder else MAX_LOOK_S
                    yield look
                yield Look(False, reason=NOT_ASKED, detail="the process that asks the registry has ended")
            except TimeoutError:
                yield Look(False, reason="the registry does not answer")
            # The process could not be started, or its line is too long, not JSON, or not a Look.
            except (OSError, ValueError, TypeError) as error:
                yield Look(False, reason=NOT_ASKED, detail=f"{NOT_ASKED}: {type(error).__name__}: {error}")
            finally:
                if watch:
                    watch.kill()
                    watch.wait()
            await asyncio.sleep(every_s)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
