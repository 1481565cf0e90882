"""Where set-up reads and writes: the project, its environment, the cache of this machine."""

import json
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
SITE_PACKAGES = VENV / "lib" / "python3.11" / "site-packages"
PYSPARK = SITE_PACKAGES / "pyspark"
STATE = VENV / "chexscale-setup.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "chexscale")
LOGS = CACHE / "logs"


def read_state() -> dict:
    """What the finished steps left in the environment: one key per step. Empty where there is none."""
    try:
        return json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_state(state: dict) -> None:
    """Replaces the state in one step; a kill leaves the old one."""
    temporary = STATE.with_suffix(".new")
    temporary.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    temporary.replace(STATE)
