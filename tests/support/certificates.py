"""An own certificate authority and a certificate for 127.0.0.1, made by the program openssl."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NAME = "Inspection of Example Corp"


class Certificates(NamedTuple):
    authority: Path
    chain: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make them as PEM files; skip the test without openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    found = Certificates(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    authority_key = folder / "authority.key"
    _openssl(*new, "-subj", f"/CN={NAME}", "-keyout", authority_key, "-out", found.authority)
    signed = ["-CA", found.authority, "-CAkey", authority_key, "-addext", "subjectAltName=IP:127.0.0.1"]
    _openssl(
        *new,
        *signed,
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "basicConstraints=CA:FALSE",
        "-keyout",
        found.key,
        "-out",
        found.chain,
    )
    return found


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
