"""Write gen/ from proto/ with grpcio-tools; with --check, say whether what is committed is what it writes."""

from __future__ import annotations

import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc
from steps import ROOT

PROTO = ROOT / "proto"
GENERATED = ROOT / "gen"
PACKAGE = "connectorpb"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: gen.py [--check]", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        _generate(fresh)
        if arguments == ["--check"]:
            return _report(_differences(fresh / PACKAGE, GENERATED / PACKAGE))
        shutil.rmtree(GENERATED / PACKAGE, ignore_errors=True)
        shutil.copytree(fresh / PACKAGE, GENERATED / PACKAGE)
    return 0


def _generate(target: Path) -> None:
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    well_known = files("grpc_tools") / "_proto"
    # Paths below proto/ become the Python packages, so one module's import of another is right as written.
    failed = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO}",
            f"--proto_path={well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *sources,
        ]
    )
    if failed:
        raise SystemExit(failed)
    for directory in (path for path in (target / PACKAGE, *(target / PACKAGE).rglob("*")) if path.is_dir()):
        (directory / "__init__.py").touch()
    (target / PACKAGE / "py.typed").touch()


def _differences(fresh: Path, committed: Path) -> list[str]:
    def contents(root: Path) -> set[Path]:
        return {
            path.relative_to(root) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        }

    wanted, there = contents(fresh), contents(committed)
    return sorted(
        [f"missing: {path}" for path in wanted - there]
        + [f"not generated: {path}" for path in there - wanted]
        + [
            f"differs: {path}"
            for path in wanted & there
            if not filecmp.cmp(fresh / path, committed / path, shallow=False)
        ]
    )


def _report(differences: list[str]) -> int:
    if not differences:
        print("gen/ is what proto/ says")
        return 0
    print("gen/ is not what proto/ says; run `make gen` and commit the result:", file=sys.stderr)
    for line in differences:
        print(f"  {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
