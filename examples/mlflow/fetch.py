"""Puts the version of a registered model that an alias names into a repository.

    python fetch.py http://mlflow:5000 credit champion models/credit

Asks MLflow's REST API which version the alias means, downloads its ONNX file, writes a
manifest that says where it came from, and renames the whole into
`models/credit/<version>`. MLflow's version number stays the version's number. A version
that is there already is left alone. Prints the number.

Nothing but the standard library: it runs in a job beside the router as well as in CI.
MLFLOW_TRACKING_TOKEN is sent when it is set.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20


def main() -> int:
    if len(sys.argv) != 5:
        print(__doc__, file=sys.stderr)
        return 64
    server, model, alias, repository = sys.argv[1:]
    try:
        version = fetch(server.rstrip("/"), model, alias, Path(repository))
    except urllib.error.HTTPError as error:
        print(f"{server}: {error.code}: {error.read().decode()}", file=sys.stderr)
        return 1
    except (OSError, LookupError) as error:
        print(f"{server}: {error}", file=sys.stderr)
        return 1
    print(version)
    return 0


def fetch(server: str, model: str, alias: str, repository: Path) -> int:
    """The version that the alias names, once it is in the repository."""
    asked = {"name": model, "alias": alias}
    found = ask(server, "registered-models/alias", asked)["model_version"]
    version = int(found["version"])
    target = repository / str(version)
    if target.exists():
        return version
    repository.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".fetch-", dir=repository))
    try:
        path = onnx_path(server, found)
        digest = download(server, found, path, partial / "model.onnx")
        run = run_of(server, found)
        manifest = manifest_of(server, found, run) | {"files": {"model.onnx": digest}}
        # JSON is YAML.
        (partial / "manifest.yaml").write_text(json.dumps(manifest, indent=1) + "\n")
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def onnx_path(server: str, found: dict[str, Any]) -> str:
    """Where the ONNX file is among the version's artifacts, as its MLmodel says."""
    with get(server, found, "MLmodel") as opened:
        lines = [line.strip() for line in opened.read().decode().splitlines()]
    if "onnx:" not in lines:
        raise LookupError(f"version {found['version']} has no ONNX flavour")
    flavour = lines[lines.index("onnx:") + 1 :]
    return next(
        (line.removeprefix("data: ") for line in flavour if line.startswith("data: ")),
        "model.onnx",
    )


def manifest_of(
    server: str, found: dict[str, Any], run: dict[str, Any]
) -> dict[str, Any]:
    """What MLflow knows of where the version came from."""
    tags = {tag["key"]: tag["value"] for tag in run.get("data", {}).get("tags", [])}
    training = {
        "commit": tags.get("mlflow.source.git.commit"),
        "repository": tags.get("mlflow.source.git.repoURL"),
        "run": found.get("run_id"),
    }
    data = [
        {"name": one["dataset"]["name"], "uri": f"digest:{one['dataset']['digest']}"}
        for one in run.get("inputs", {}).get("dataset_inputs", [])
    ]
    created = datetime.fromtimestamp(int(found["creation_timestamp"]) / 1000, UTC)
    own = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
    return {
        "training": {key: value for key, value in training.items() if value},
        "data": data,
        "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **({"description": found["description"]} if found.get("description") else {}),
        "tags": {
            **own,
            "mlflow": f"{server}/#/models/{found['name']}/versions/{found['version']}",
        },
    }


def run_of(server: str, found: dict[str, Any]) -> dict[str, Any]:
    """The run that made the version; empty when it was registered without one."""
    if not found.get("run_id"):
        return {}
    asked = ask(server, "runs/get", {"run_id": found["run_id"]})
    run: dict[str, Any] = asked["run"]
    return run


def download(server: str, found: dict[str, Any], path: str, target: Path) -> str:
    """Write an artifact of the version to a file; its SHA-256."""
    digest = hashlib.sha256()
    with get(server, found, path) as source, target.open("wb") as opened:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            opened.write(chunk)
        os.fsync(opened.fileno())
    return digest.hexdigest()


def get(server: str, found: dict[str, Any], path: str) -> Any:
    query = {"name": found["name"], "version": found["version"], "path": path}
    return request(f"{server}/model-versions/get-artifact", query)


def ask(server: str, what: str, query: dict[str, str]) -> dict[str, Any]:
    with request(f"{server}/api/2.0/mlflow/{what}", query) as opened:
        answer: dict[str, Any] = json.load(opened)
    return answer


def request(url: str, query: dict[str, str]) -> Any:
    made = urllib.request.Request(f"{url}?{urllib.parse.urlencode(query)}")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        made.add_header("Authorization", f"Bearer {token}")
    return urllib.request.urlopen(made, timeout=TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
