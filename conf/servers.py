"""Which addresses a tracking server of MLflow may have. Nothing is asked here."""

import re
from urllib.parse import urlsplit

from conf.errors import InputError

EXPECTED = "an address such as http://host:5000, or databricks, or nothing"
DATABASES = ("postgresql", "mysql", "sqlite", "mssql", "file")
"""what MLflow itself could open, but only with a place for the files of its runs that all hosts reach"""


def check_server(server: str) -> None:
    """Raises InputError, with the address to give instead, for one that the commands cannot use. Empty: none."""
    if "@" in server:
        # Not shown: it has a password, and would be printed and kept with each run.
        raise InputError(
            "tracking_server has a user or a password in its address: leave them out, and put them into the "
            "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    kind, _, rest = server.partition(":")
    kind = kind.partition("+")[0].lower()
    if not server or re.fullmatch(r"databricks(://[^/]+)?", server):
        return
    if kind in ("http", "https") and rest.startswith("//"):
        _check_url(server)
        return
    if kind in DATABASES:
        raise InputError(
            f"tracking_server is an address of {kind}, expected {EXPECTED}: give a database to `mlflow server "
            "--backend-store-uri`, and that server's address here; with nothing, mlflow.db in the workspace keeps all"
        )
    if kind in ("databricks-uc", "uc"):
        advice = "write databricks or databricks://PROFILE; models go to Unity Catalog then"
    elif re.fullmatch(r"[\w.-]+(:\d+)?(/.*)?", server):
        advice = f"write http://{server} for such a server"
    else:
        advice = "other kinds are not known here"
    raise InputError(f"tracking_server is {server!r}, expected {EXPECTED}: {advice}")


def _check_url(server: str) -> None:
    try:
        parts = urlsplit(server)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"tracking_server is {server!r}, expected {EXPECTED}: {error}") from error
    if not parts.hostname or parts.query or parts.fragment or re.search(r"\s", server):
        raise InputError(f"tracking_server is {server!r}, expected {EXPECTED}")
    if server.endswith("/"):
        raise InputError(f"tracking_server is {server!r}, expected no slash at its end: write {server.rstrip('/')}")
