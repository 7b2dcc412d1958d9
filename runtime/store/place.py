"""Place of the data folder, and its creation."""

import os
import sys
from pathlib import Path

from moembed.errors import OutputError, shown
from moembed.files.paths import home_folder, xdg_folder

VARIABLE = "MOEMBED_DATA"
_APP = "moembed"
_DRIVES = tuple(map(Path, ("/mnt", "/media", "/run/media", "/Volumes")))  # where systems mount drives
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\134": "\\"}  # of /etc/fstab


def data_folder() -> Path | None:
    """Return the user's data folder: `$MOEMBED_DATA`, else the platform's default. It may not exist yet.

    None if the user has no home folder.

    Raises:
        OutputError: the variable does not hold an absolute path.
    """
    own = os.environ.get(VARIABLE)
    try:
        if own:
            return _absolute(own)
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or home_folder() / "AppData" / "Local") / _APP
        default = ("Library", "Application Support") if sys.platform == "darwin" else (".local", "share")
        return (xdg_folder("XDG_DATA_HOME") or home_folder().joinpath(*default)) / _APP
    except RuntimeError:
        return None


def writable_data_folder() -> Path:
    """Return the data folder for writing, and create it if necessary.

    Raises:
        OutputError: there is no place for it, its drive is not mounted, or it is not writable.
    """
    folder = data_folder()
    if folder is None:
        raise OutputError(f"no folder to keep models in: this user has no home folder; set {VARIABLE} to a folder")
    hint = (
        f"set {VARIABLE} to a folder that is writable, or write the bundle elsewhere with moembed pull NAME -o FOLDER"
    )
    if os.path.lexists(folder) and not folder.exists():
        raise OutputError(
            f"the data folder {folder} is a link to {os.path.realpath(folder)}, which does not exist: mount its drive or "
            f"create that folder, or set {VARIABLE} to another one"
        )
    if (drive := _unmounted(folder)) is not None:
        raise OutputError(
            f"the data folder {folder} is on {drive}, and no drive is mounted there: mount it, or set {VARIABLE} to another "
            f"folder; create the folder yourself (mkdir -p {folder}) if it belongs on this disk"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the data folder {folder} cannot be created: {error.strerror}; {hint}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the data folder {folder} is not writable: {hint}")
    return folder


def _absolute(text: str) -> Path:
    try:
        folder = Path(text).expanduser()
    except RuntimeError:
        folder = Path(text)
    if not folder.is_absolute():
        raise OutputError(f"{VARIABLE} = {shown(text)} is not an absolute path: set it to one, such as /srv/moembed")
    return folder


def _unmounted(folder: Path) -> Path | None:
    """Return the folder whose drive seems to be missing; None if there is none.

    That is an empty mount point of /etc/fstab on which nothing is mounted, and a folder that does not exist, in a place for
    drives, with no mount point above it.
    """
    above = [folder, *folder.parents]
    for place in _mount_points():
        if place in above and place.is_dir() and not os.path.ismount(place) and not any(_entries(place)):
            return place
    if folder.exists() or any(os.path.ismount(place) for place in above[:-1]):
        return None
    return next((above[above.index(place) - 1] for place in _DRIVES if place in folder.parents), None)


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (names are enough)
    except OSError:
        return []


def _mount_points() -> list[Path]:
    """Return the mount points of /etc/fstab, but for the root."""
    try:
        lines = Path("/etc/fstab").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    points = [fields[1] for line in lines if len(fields := line.split()) > 1 and not line.lstrip().startswith("#")]
    for code, letter in _ESCAPES.items():
        points = [point.replace(code, letter) for point in points]
    return [Path(point) for point in points if point.startswith("/") and point != "/"]
