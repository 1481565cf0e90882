import pytest

from conf.errors import InputError
from conf.servers import check_server
from conf.settings import Settings


@pytest.mark.parametrize(
    "server",
    [
        "",
        "http://host:5000",
        "https://mlflow.hospital.org/prefix",
        "http://[::1]:5000",
        "databricks",
        "databricks://ME",
    ],
)
def test_addresses_that_are_taken(server):
    check_server(server)


@pytest.mark.parametrize(
    ("server", "advice"),
    [
        ("host:5000", "write http://host:5000 for such a server"),
        ("mlflow.hospital.org", "write http://mlflow.hospital.org"),
        ("http://host:5000/", "no slash at its end: write http://host:5000$"),
        ("http://host:port", "Port could not be cast"),
        ("http://host:99999", "Port out of range"),
        ("http://", "expected an address such as"),
        ("http:/host", "other kinds are not known here"),
        ("http://host a", "expected an address such as"),
        ("http://host?a=b", "expected an address such as"),
        ("http://[::1", "Invalid IPv6"),
        ("databricks:/", "other kinds are not known here"),
        ("databricks-uc", "write databricks or databricks://PROFILE"),
        ("databricks-uc://ME", "write databricks or databricks://PROFILE"),
        ("azureml://host", "other kinds are not known here"),
        ("sqlite:///mlflow.db", "an address of sqlite, .* give a database to `mlflow server --backend-store-uri`"),
        ("file:/runs", "an address of file"),
    ],
)
def test_other_addresses_are_refused_with_the_one_to_give(server, advice):
    with pytest.raises(InputError, match=f"^tracking_server is .*{advice}"):
        Settings(tracking_server=server)


@pytest.mark.parametrize(
    "server",
    [
        *("https://me:secret@host:5000", "http://:secret@host", "postgresql+x://me:secret@h/d", "me:secret@host:5000"),
        *(
            "mysql2://me:secret@h",
            "http://me:sec/ret@host:5000",
            "http://me:secret@[host",
            "databricks-uc://me:secret@x",
        ),
    ],
)
def test_a_password_is_refused_and_not_shown(server):
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as raised:
        Settings(tracking_server=server)
    assert "sec" not in str(raised.value)
