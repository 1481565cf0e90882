"""The manifest of any folder of images with a label table whose columns the settings describe."""

from upath import UPath

from conf.settings import Etl
from etl.contract.listing import list_files
from etl.sources.files import describe_match, match_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.split import HASHED, NEITHER, NO_PATIENTS, assign_split, describe_unnamed_split, own_split
from etl.sources.tables.cells import contradictions, read_findings
from etl.sources.tables.file import describe_unread, optional_column, read_table, table_path


def read_label_table(source: UPath, settings: Etl) -> Manifest:
    """Reads the table that settings.columns describes and locates the images without opening any.

    The image column holds paths below the source. Cells of findings are 1, 0, -1 (uncertain, see settings.uncertain) or
    empty (unknown). Raises InputError for a missing table or column, a cell that is no label, a patient in two splits,
    or a source that has none of the listed images.
    """
    columns = settings.columns
    path = table_path(source, columns.label_file)
    named = {role: name for role, name in vars(columns).items() if role not in ("label_file", "findings") and name}
    table = read_table(path, [*named.values(), *columns.findings])
    table, findings, labels, notes = read_findings(table, named.values(), path, settings)
    rows = build_rows(
        path,
        images=table[columns.image],
        patients=table[columns.patient or columns.image],
        follow_up=optional_column(table, columns.follow_up),
        age=optional_column(table, columns.age),
        sex=optional_column(table, columns.sex),
        view=optional_column(table, columns.view),
        findings=labels,
        strange_labels=contradictions(table, findings, labels),
    )
    own = None
    if columns.split and settings.split == "source":
        own = own_split(table[columns.split], rows.patient_id, path)
    rows = assign_split(rows, settings, own)
    files = list_files(source)
    rows["file"] = match_files(rows.image_id, files, path)
    unread = [name for name in table if name not in (*named.values(), *findings) and not name.startswith("Unnamed: ")]
    notes += describe_unread(unread)
    if own is None and settings.split == "source":
        notes += [HASHED if columns.patient else NEITHER, *describe_unnamed_split(table[unread], rows.file.dropna())]
    elif not columns.patient:
        notes.append(NO_PATIENTS)
    notes += describe_match(rows.image_id, rows.file)
    searched = f"listed images is below {source}: check --etl.source and --etl.columns.image"
    why = f"not listed in {path.name}"
    return assemble(rows, files, findings, [path], searched, left_out=why, notes=notes)
