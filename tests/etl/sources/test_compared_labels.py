"""How far two sources of labels agree, through a run of the ETL."""

import pytest
import yaml

from conf.errors import InputError
from conf.settings import Etl
from conf.workspace import Workspace
from etl.contract.storage import locate
from etl.sources.joining.join import read_sources
from etl.sources.joining.sources import single_source
from etl.writing.publish import publish
from tests.conftest import InlineWorkers
from tests.etl.several_sources import Sources, read
from tests.etl.tables import SMALL


@pytest.fixture
def other(nih_folder, tmp_path) -> str:
    """A scenario with a second table of the NIH folder's images: another word for Effusion, half of it missed."""
    path = tmp_path / "second.yaml"
    rows = ["image,patient,Pleural effusion,Rib fracture"]
    odd = 0
    for name, finding, _, patient, *_ in nih_folder.rows:
        odd += (present := "Effusion" in finding)
        rows.append(f"{name},{patient},{'' if name.startswith('00000002') else int(present and odd % 2)},0")
    (nih_folder.root / "second.csv").write_text("\n".join(rows))
    columns = {"label_file": "second.csv"}
    path.write_text(yaml.safe_dump({"etl": {"source": str(nih_folder.root), "format": "csv", "columns": columns}}))
    return str(path)


def read_with(nih_folder, other: str, **etl):
    settings = Etl(**{**SMALL, "compared_labels": other, **etl})
    return settings, read_sources([single_source(locate(str(nih_folder.root)), settings)], settings)


def test_shared_findings_are_compared_on_images_that_both_label(nih_folder, other):
    _, manifest = read_with(nih_folder, f"reading=={other}".replace("==", "="))
    assert manifest.agreement == {
        "reading": {
            "images": 48,
            "findings": {
                "Effusion": {
                    **{"name": "Pleural effusion", "known": 46, "present": 12, "others_present": 6, "both_present": 6},
                    **{"kappa": pytest.approx(0.596491, abs=1e-6), "ppv": 0.5, "sensitivity": 1.0},
                }
            },
        }
    }
    assert "agreement with the labels of reading (Cohen's kappa) on 48 images: Effusion 0.60" in manifest.notes
    assert "reading/second.csv" in manifest.sha256


def test_the_card_has_the_agreement_and_the_table_stays(nih_folder, other, tmp_path):
    workspace, cards = Workspace.at(str(tmp_path / "workspace")), []
    for compared in ("", other, other):
        settings, manifest = read_with(nih_folder, compared)
        outcome = publish(workspace.tables(""), settings, "nih", manifest, InlineWorkers())
        cards.append(outcome.card)
    assert cards[0].agreement == {} and cards[1].agreement["second"]["images"] == 48
    assert outcome.counts == {"new": 0, "changed": 0, "relabelled": 0, "removed": 0} and not outcome.committed
    assert cards[1].delta_version == cards[0].delta_version + 1


def test_labels_of_other_images_or_findings_are_refused(nih_folder, other, tmp_path):
    with pytest.raises(InputError, match=r"second.yaml of etl.compared_labels shares no finding with the source"):
        read_with(nih_folder, other, findings=["Mass"])
    sources = Sources(tmp_path / "several")
    with pytest.raises(InputError, match=r"shares no image with the source: it has '0.png', the source has '00000001_"):
        read_with(nih_folder, str(sources.folder / "hospital.yaml"))
    with pytest.raises(InputError, match=r"etl.compared_labels .*none.yaml"):
        read_with(nih_folder, str(tmp_path / "none.yaml"))


def test_each_of_several_sources_may_have_other_labels(tmp_path):
    sources = Sources(tmp_path)
    sources.scenario("same", source=str(tmp_path / "films" / "hospital"), format="csv", columns={"split": "part"})
    sources.scenario(
        "hospital",
        source=str(tmp_path / "films" / "hospital"),
        format="csv",
        columns={"split": "part"},
        compared_labels=str(tmp_path / "same.yaml"),
    )
    agreement = read(sources.settings()).agreement
    assert list(agreement) == ["hospital: same"]
    assert {part["kappa"] for part in agreement["hospital: same"]["findings"].values()} == {1.0}
