"""How many distributions a plain installation brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

from bench_support.report import Row, Section

LIMIT = 30.0
TOOLS = {"pip", "setuptools", "wheel"}


def measure(*, full: bool) -> Section:
    """Install into a fresh environment and count; this asks the package index."""
    section = Section("Installation: distributions in a fresh environment, pip and setuptools not counted", "")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [os.path.join(folder, "bin", "python"), "-m", "pip", "--disable-pip-version-check"]
        began = time.monotonic()
        subprocess.run([*pip, "install", "-qq", os.environ["BENCH_SOURCE"]], check=True)
        seconds = time.monotonic() - began
        listed = json.loads(subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True).stdout)
        size = sum(
            os.path.getsize(os.path.join(at, name))
            for at, _, names in os.walk(folder)
            for name in names
            if not os.path.islink(os.path.join(at, name))
        )
    names = sorted(row["name"] for row in listed if row["name"].lower() not in TOOLS)
    section.rows.append(
        Row(
            "pip install .",
            float(len(names)),
            "",
            limit=LIMIT,
            limits="value",
            note=f"{seconds:.0f} s, {size / 1e6:.0f} MB with pip: {', '.join(names)}",
        )
    )
    return section
