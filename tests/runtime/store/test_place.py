"""Place of the data folder: platformdirs' place, the variable, odd values, and drives that are not there."""

import ntpath
import os
import posixpath
import subprocess
import sys
from pathlib import Path

import platformdirs.macos
import platformdirs.unix
import platformdirs.windows
import pytest

from moembed.cli import main
from moembed.errors import OutputError
from moembed.store import place
from moembed.store.place import data_folder, writable_data_folder

CLASSES = {"linux": platformdirs.unix.Unix, "darwin": platformdirs.macos.MacOS}
mounts = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount")


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path):
    for name in ("MOEMBED_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def mounted(tmp_path):
    """Mount small file systems for one test: `mounted(name, size)` returns a folder."""
    done = []

    def mount(name, size="4m"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        ran = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
        if ran.returncode:
            pytest.skip("mounting is not allowed here")
        done.append(folder)
        return folder

    yield mount
    for folder in reversed(done):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("xdg", [None, "/srv/data", "data", "", "~/d"])
def test_the_default_is_that_of_platformdirs(monkeypatch, platform, xdg):
    """N26: relative XDG folders are ignored."""
    if os.sep != "/":
        pytest.skip("POSIX paths")
    monkeypatch.setattr(sys, "platform", platform)
    if xdg is not None:
        monkeypatch.setenv("XDG_DATA_HOME", xdg)
    assert data_folder() == Path(CLASSES[platform]("moembed").user_data_dir)


def test_the_default_on_windows_is_that_of_platformdirs(monkeypatch):
    local = r"C:\Users\Jörg\AppData\Local"
    monkeypatch.setattr(platformdirs.windows, "_RESOLVE_WIN_FOLDER", platformdirs.windows.get_win_folder_from_env_vars)
    monkeypatch.setenv("LOCALAPPDATA", local)
    if os.sep == "/":
        monkeypatch.setattr(platformdirs.windows.os, "path", ntpath)
    expected = platformdirs.windows.Windows("moembed", False).user_data_dir
    monkeypatch.setattr(platformdirs.windows.os, "path", posixpath if os.sep == "/" else ntpath)
    monkeypatch.setattr(sys, "platform", "win32")
    assert ntpath.normpath(str(data_folder()).replace("/", "\\")) == ntpath.normpath(expected)


@pytest.mark.parametrize("value", ["data", "$HOME/d", "./d", "~no-such-user-here/d"])
def test_a_variable_that_is_not_absolute_is_refused(monkeypatch, capsys, value):
    """N26: from a .env file nothing expands `$HOME`."""
    monkeypatch.setenv("MOEMBED_DATA", value)
    with pytest.raises(OutputError, match="MOEMBED_DATA = '.*' is not an absolute path: set it to one"):
        data_folder()
    assert main(["pull", "acme/x"]) == 2
    assert "is not an absolute path" in capsys.readouterr().err
    assert main(["models"]) == 2
    assert main(["doctor"]) == 0, "it shows the problem"
    assert "is not an absolute path" in capsys.readouterr().out
    assert list(Path().iterdir()) == [], "no folder named ~, $HOME or data"


def test_the_variable_may_be_below_home(monkeypatch, tmp_path):
    """N26"""
    monkeypatch.setenv("MOEMBED_DATA", "~/d")
    assert data_folder() == tmp_path / "home" / "d"
    monkeypatch.setenv("MOEMBED_DATA", "")
    assert data_folder() == tmp_path / "home" / ".local/share/moembed"


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_none(monkeypatch, home):
    """N26: `Path.home()` is then `/` or in the working folder."""
    monkeypatch.setenv("HOME", home)
    assert data_folder() is None
    with pytest.raises(OutputError, match="this user has no home folder; set MOEMBED_DATA to a folder"):
        writable_data_folder()
    assert list(Path().iterdir()) == []


def test_a_dangling_link_is_named(monkeypatch, tmp_path):
    """N27"""
    (tmp_path / "data").symlink_to(tmp_path / "drive" / "moembed")
    monkeypatch.setenv("MOEMBED_DATA", str(tmp_path / "data"))
    with pytest.raises(OutputError, match=r"/data is a link to .*drive/moembed, which does not exist: mount its drive"):
        writable_data_folder()
    assert not (tmp_path / "drive").exists()


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_created_where_a_drive_is_not_mounted(monkeypatch, tmp_path, there):
    """N27: the models would go onto the disk of the mount point, and be hidden when the drive is mounted."""
    monkeypatch.setattr(place, "_DRIVES", (tmp_path / "mnt",))
    (tmp_path / "mnt" / ("big" if there else "other")).mkdir(parents=True)
    monkeypatch.setenv("MOEMBED_DATA", str(tmp_path / "mnt" / "big" / "moembed"))
    with pytest.raises(
        OutputError, match=r"is on .*/mnt/big, and no drive is mounted there: mount it, or set MOEMBED_DATA"
    ):
        writable_data_folder()
    assert [path.name for path in tmp_path.rglob("mnt/**/*")] == ["big" if there else "other"]
    (tmp_path / "mnt" / "big" / "moembed").mkdir(parents=True)
    assert writable_data_folder() == tmp_path / "mnt" / "big" / "moembed", "as the message says"


def test_a_mount_point_of_fstab_that_is_not_mounted(monkeypatch, tmp_path):
    """N27: the variable names the mount point itself."""
    drive = tmp_path / "my drive"
    drive.mkdir()
    monkeypatch.setenv("MOEMBED_DATA", str(drive))
    assert writable_data_folder() == drive
    lines = f"# /dev/sdb1 /other\nUUID=1 / ext4\nUUID=2 {str(drive).replace(' ', chr(92) + '040')} ext4 nofail 0 2\n"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, *a: lines if self == Path("/etc/fstab") else read(self, *a))
    with pytest.raises(OutputError, match=r"is on .*/my drive, and no drive is mounted there"):
        writable_data_folder()


@mounts
def test_a_drive_that_is_mounted_and_empty_is_taken(monkeypatch, mounted, tmp_path):
    """N27"""
    monkeypatch.setattr(place, "_DRIVES", (tmp_path,))
    drive = mounted("drive")
    monkeypatch.setenv("MOEMBED_DATA", str(drive / "moembed"))
    assert writable_data_folder() == drive / "moembed"


def test_what_cannot_be_created_is_told(monkeypatch, tmp_path):
    """N25, N31"""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOEMBED_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(
        OutputError, match=r"cannot be created: Not a directory; set MOEMBED_DATA .* moembed pull NAME -o"
    ):
        writable_data_folder()


def test_the_mode_follows_the_umask(monkeypatch, tmp_path):
    """N32"""
    for mask in (0o002, 0o022, 0o077):
        monkeypatch.setenv("MOEMBED_DATA", str(tmp_path / f"{mask:o}"))
        before = os.umask(mask)
        try:
            folder = writable_data_folder()
        finally:
            os.umask(before)
        assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


def test_doctor_and_models_show_the_folder(monkeypatch, tmp_path, capsys):
    """N25"""
    monkeypatch.setenv("MOEMBED_DATA", str(tmp_path / "d"))
    for command in (["doctor"], ["models"]):
        assert main(command) == 0
        assert str(tmp_path / "d") in capsys.readouterr().out
    assert not (tmp_path / "d").exists(), "looking writes nothing"
    assert place.VARIABLE == "MOEMBED_DATA"
