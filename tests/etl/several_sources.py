"""Small sources of different origin, each with its scenario file, for the tests of tables of several sources."""

from pathlib import Path

import yaml

from conf.settings import Etl
from conf.workspace import Workspace
from etl.sources.joining.join import read_sources
from etl.sources.joining.sources import for_the_run, open_sources
from etl.writing.publish import Published, publish
from tests.conftest import InlineWorkers, NihFolder
from tests.etl.tables import SMALL, film

# In the words of VinDr-CXR: the first half of the films has an effusion, every third a nodule or a mass, every second a
# rib fracture, which is unknown of every fifth.
HEADER = "image,patient,part,Pleural effusion,Nodule/Mass,Rib fracture\n"


class Sources:
    """A folder with the scenario files of sources; `nih` is an NIH folder, `hospital` has a label table."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.nih = NihFolder(folder / "films" / "nih", num_patients=12)
        self.put_table("hospital", 18)
        self.scenario("nih", source=str(self.nih.root), val_fraction=0.3)
        self.scenario("hospital", source=str(folder / "films" / "hospital"), format="csv", columns={"split": "part"})

    def put_table(self, name: str, number: int, shift: int = 0) -> None:
        """A folder with a label table and `number` films of as many patients."""
        place = self.folder / "films" / name
        place.mkdir(parents=True)
        parts = ("train", "val", "test")
        rows = [
            f"{i}.png,{i},{parts[i % 3]},{int(i < number / 2)},{int(i % 3 == 0)},{'' if i % 5 == 4 else i % 2}\n"
            for i in range(number)
        ]
        (place / "labels.csv").write_text(HEADER + "".join(rows))
        for i in range(number):
            (place / f"{i}.png").write_bytes(film(1000 + shift + i))

    def scenario(self, name: str, **etl) -> str:
        """Writes NAME.yaml, and returns its path."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"etl": etl}))
        return str(path)

    def settings(self, *names: str, **etl) -> Etl:
        """Settings of a run of these sources, by default of both."""
        files = [str(self.folder / f"{name}.yaml") for name in names or ("nih", "hospital")]
        shared = {name: value for name, value in SMALL.items() if name != "val_fraction"}
        return Etl(**{**shared, "sources": files, **etl})


def read(settings: Etl):
    sources = open_sources(settings)
    return read_sources(sources, for_the_run(settings, sources), InlineWorkers())


def run(settings: Etl, workspace: Workspace, workers=None, rebuild=False) -> Published:
    sources = open_sources(settings)
    etl = for_the_run(settings, sources)
    manifest = read_sources(sources, etl, InlineWorkers())
    places = ", ".join(str(source.place) for source in sources)
    return publish(workspace.tables(""), etl, places, manifest, workers or InlineWorkers(), rebuild)
