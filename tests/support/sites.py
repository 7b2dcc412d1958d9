"""Site folders with chosen packages only, so that an import of anything else fails for real."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVING = ("numpy", "tokenizers", "onnxruntime")


def make_site(site: Path, packages: Sequence[str] = SERVING) -> Path:
    """Make a folder with links to moembed and to packages of this environment, without their metadata."""
    (site / "moembed").mkdir(parents=True)
    for entry in _folder_of("moembed").iterdir():
        (site / "moembed" / entry.name).symlink_to(entry)
    # These are beside the package when it is installed for editing.
    for part in ("convert", "export", "models", "quantize", "train"):
        if not (site / "moembed" / part).exists():
            (site / "moembed" / part).symlink_to(_folder_of(f"moembed.{part}"))
    for package in packages:
        folder = _folder_of(package)
        (site / package).symlink_to(folder)
        for libraries in folder.parent.glob(f"{package}.libs"):
            (site / libraries.name).symlink_to(libraries)
    return site


def add_metadata(
    site: Path, name: str, version: str, package: str, *, installer: str = "pip", requires: Sequence[str] = ()
) -> None:
    """Write what pip writes about a distribution that unpacks into the folder `package`."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]) + "\n")
    (folder / "INSTALLER").write_text(f"{installer}\n")
    (folder / "top_level.txt").write_text(f"{package}\n")


def run_in(site: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `moembed` with the packages of a site folder and the standard library alone."""
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r})\nfrom moembed.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-I", "-S", "-c", script, *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)


def _folder_of(package: str) -> Path:
    return Path(importlib.util.find_spec(package).origin).parent
