"""Mapped files of a process, as Linux shows them."""

import sys

import pytest

LINUX = sys.platform.startswith("linux")
on_linux = pytest.mark.skipif(not LINUX, reason="reads /proc")


def mapping_reader():
    """Return a function that an engine sends to its workers as it is: they do not see this module.

    The function takes the end of a file's name, and returns the device and inode of that file in this process or another one, its
    KiB that are mapped, and those of them that are that process's own copy: `"fe:00 123 34968 0"`. Several files are several
    lines. Other systems than Linux show nothing.
    """

    def read(suffix, process="self"):
        import re
        from pathlib import Path

        files, own, maps = {}, None, Path(f"/proc/{process}/smaps")
        for line in maps.read_text().splitlines() if maps.exists() else ():
            words = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                own = f"{words[3]} {words[4]}" if line.endswith(suffix) else None
                if own:
                    files.setdefault(own, [0, 0])
            elif own and words[0] == "Size:":
                files[own][0] += int(words[1])
            elif own and words[0] in ("Anonymous:", "Private_Dirty:"):
                files[own][1] += int(words[1])
        return "\n".join(f"{name} {size} {copied}" for name, (size, copied) in files.items())

    return read


def check_shared(told, path):
    """Check what `mapping_reader` told in several processes: all map one file as a whole, and none has a copy of a part."""
    (line,) = set(told)
    number, size, copied = line.split()[1:]
    assert int(number) == path.stat().st_ino
    assert int(size) * 1024 >= path.stat().st_size
    assert int(copied) == 0
