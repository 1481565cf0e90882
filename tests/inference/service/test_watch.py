"""Whatever the process that asks the registry writes or does, the service keeps following the champion."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from conf.settings import Settings
from conf.workspace import Workspace
from inference.service.door.counters import Counters
from inference.service.engine import champion as following
from inference.service.engine.champion import LiveChampion
from inference.service.engine.model import open_model
from inference.service.engine.watch import MAX_DETAIL, Look, look
from tests.inference.service import toy

RELOAD_S = 0.2


def settings_of(workspace: Workspace) -> Settings:
    settings = Settings(workspace=str(workspace.root))
    return replace(settings, serving=replace(settings.serving, reload_s=RELOAD_S))


def watching(code: str) -> subprocess.Popen:
    """Starts a process that stands in for the one that asks the registry."""
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def follow(
    workspace: Workspace, watch: subprocess.Popen | None, until: Callable[[LiveChampion], bool]
) -> tuple[LiveChampion, list]:
    """Follows the champion until a condition; returns it, and all reasons given for the registry's state on the way."""

    async def run() -> tuple[LiveChampion, list]:
        champion, said = LiveChampion(settings_of(workspace), workspace, Counters(), watch), []
        task = asyncio.create_task(champion.follow())
        async with asyncio.timeout(30):
            while not until(champion):
                assert not task.done(), task
                if champion.registry.reason not in said:
                    said.append(champion.registry.reason)
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return champion, said

    return asyncio.run(run())


@pytest.mark.parametrize(
    "code",
    ["print('x' * 100_000)", "print('Downloading artifacts: 100%')", "print(5)", "print('{\"what\": 1}')"],
)
def test_a_watch_that_writes_no_looks_is_noticed(registry, code):
    watch = watching(f"{code}; import time; time.sleep(60)")
    follow(registry, watch, lambda champion: champion.registry.reason == "the registry was not asked")
    assert watch.poll() is not None


def test_a_watch_that_has_ended_is_replaced(registry):
    champion, said = follow(registry, watching("pass"), lambda champion: champion.served is not None)
    assert said[:2] == ["not asked yet", "the registry was not asked"]
    assert champion.registry == following.RegistryState(True, None, None)


def test_a_watch_that_cannot_be_started_is_tried_again(registry, monkeypatch):
    def until(champion: LiveChampion) -> bool:
        if champion.registry.reason == "the registry was not asked":
            monkeypatch.undo()
        return champion.served is not None

    monkeypatch.setattr(sys, "executable", "/no/such/python")
    _, said = follow(registry, None, until)
    assert said[:2] == ["not asked yet", "the registry was not asked"]


def test_a_registry_that_cannot_be_read_is_reported_in_one_short_line(tmp_path):
    workspace = Workspace.at(str(tmp_path))
    workspace.tracking_db.write_bytes(b"no database" * 1000)
    (found,) = look(workspace, "chexscale" * 20_000)
    assert not found.reachable and len(found.detail) <= MAX_DETAIL and "\n" not in found.detail


def test_files_that_cannot_be_fetched_are_not_taken_for_a_registry_that_cannot_be_read(new_store, tmp_path):
    workspace = Workspace.at(str(tmp_path / "registry"))
    new_store(workspace)
    version, folder = toy.register(workspace)
    shutil.rmtree(folder)
    fetching, failed = look(workspace, toy.NAME)
    assert (fetching.reachable, fetching.version, failed.reachable, failed.version) == (True, version, True, None)
    assert failed.reason == f"version {version} is the champion, but its files cannot be fetched (InputError)"
    assert f"the files of {toy.NAME} version {version}, which belong in {folder}, are missing" in failed.detail


def test_a_champion_whose_files_are_gone_leaves_the_present_one_in_service(new_store, tmp_path):
    workspace = Workspace.at(str(tmp_path / "registry"))
    new_store(workspace)
    first, _ = toy.register(workspace)
    damage = iter([lambda: shutil.rmtree(toy.register(workspace)[1])])

    def until(champion: LiveChampion) -> bool:
        if champion.served:
            next(damage, lambda: None)()
        return "cannot be fetched" in (champion.registry.reason or "")

    champion, _ = follow(workspace, None, until)
    assert (champion.served.model.files.version, champion.registry.reachable) == (first, True)


def test_a_model_that_takes_long_to_fetch_is_waited_for(registry, monkeypatch):
    monkeypatch.setattr(following, "MAX_LOOK_S", 0.5)
    fetching, fetched = (json.dumps(asdict(one)) for one in look(registry, toy.NAME))
    code = f"""
import time
print({fetching!r}, flush=True)
time.sleep(2)
print({fetched!r}, flush=True)
time.sleep(60)
"""
    _, said = follow(registry, watching(code), lambda champion: champion.served is not None)
    assert said == ["not asked yet", "version 1 is being fetched"]


def test_a_watch_that_hangs_is_replaced(registry, monkeypatch):
    monkeypatch.setattr(following, "MAX_LOOK_S", 0.5)
    hangs = watching("import time; time.sleep(60)")
    follow(registry, hangs, lambda champion: champion.registry.reason == "the registry does not answer")
    assert hangs.poll() is not None


def test_a_champion_that_cannot_be_opened_is_tried_again_and_logged_once(new_store, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(following, "MAX_PAUSE_S", 2 * RELOAD_S)
    workspace = Workspace.at(str(tmp_path / "registry"))
    new_store(workspace)
    _, folder = toy.register(workspace)
    graph, away = folder / "int8" / "model.xml", folder / "model.xml"
    graph.rename(away)
    tried = []
    monkeypatch.setattr(following, "open_model", lambda *which: tried.append(time.monotonic()) or open_model(*which))

    def until(champion: LiveChampion) -> bool:
        if len(tried) == 4 and away.exists():
            away.rename(graph)
        return champion.served is not None

    champion, said = follow(workspace, None, until)
    assert said[-1] == "version 1 is the champion, but cannot be opened in mode int8"
    assert champion.registry == following.RegistryState(True, None, None)
    assert [record.levelname for record in caplog.records if "cannot be opened:" in record.message] == ["ERROR"]
    # The first pause is the time between two looks; later ones are longer.
    assert tried[2] - tried[1] > 1.5 * RELOAD_S


def test_following_ends_when_cancelled_even_as_a_look_arrives(tmp_path):
    line = json.dumps(asdict(Look(True, reason="no version is the champion")))
    code = f"while True: print({line!r}, flush=True)"

    async def follow_and_cancel() -> None:
        workspace = Workspace.at(str(tmp_path))
        champion = LiveChampion(settings_of(workspace), workspace, Counters(), watching(code))
        task = asyncio.create_task(champion.follow())
        await champion.looked.wait()
        await asyncio.sleep(0.001)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, "the cancellation was lost"

    for _ in range(20):
        asyncio.run(follow_and_cancel())
