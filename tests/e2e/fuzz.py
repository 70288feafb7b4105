"""schemathesis over a running house: every operation of a document is called with examples, edge cases and chance.

Its own command line is run, because it has all phases and checks: no 5xx, no status, content type, header or body that
the document does not know, 401 without a key, no wrong body accepted, no method beside the document's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))  # calls of an operation that are made by chance
SEED = os.environ.get("FUZZ_SEED", "1")
_PHASES = "examples,coverage,fuzzing"
#: A good request may be refused for what no schema can say: an unknown model, a name that is taken.
_UNFIT = "positive_data_acceptance"
#: Ids that it saw in answers are not tried: it would revoke the key that it calls with.
_NO_LEARNING = "".join(f"[phases.{phase}.extra-data-sources]\nresponses = false\n" for phase in ("coverage", "fuzzing"))
#: 413 is an answer to what is wrong and too large at once.
_REFUSED = "[checks.negative_data_rejection]\nexpected-statuses = [400, 401, 403, 404, 405, 413]\n"


def knowing(document: Mapping[str, Any], known: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The document, saying which values the parameters and body fields of these names have, so that calls find things
    and reach nothing else."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for operation in (operation for methods in copy["paths"].values() for operation in methods.values()):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in known:
                parameter["schema"] = {"enum": list(known[parameter["name"]])}
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["example"] |= {name: known[name][0] for name in content["example"] if name in known}
            fields = _schema(copy, content["schema"]).get("properties", {})
            fields |= {name: {"enum": list(known[name])} for name in fields if name in known}
    return copy


def _schema(document: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a body's schema refers to; bodies share none with answers."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def fuzz(document: Mapping[str, Any], url: str, key: str, folder: Path, *arguments: str) -> None:
    """AssertionError with all that schemathesis found. folder: a place for its files."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(_NO_LEARNING + _REFUSED)
    words = [sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", url, "--no-color"]
    words += ["--header", f"Authorization: Bearer {key}", "--phases", _PHASES, "--seed", SEED]
    words += ["--checks", "all", "--exclude-checks", _UNFIT, "--max-examples", str(EXAMPLES)]
    words += ["--warnings", "off", "--suppress-health-check", "all", "--continue-on-failure"]
    words += ["--request-timeout", "30", *arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
