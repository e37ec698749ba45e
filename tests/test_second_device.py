"""The product on a second device, in a process of its own: torch has one such device for good, once it has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import second_device

CHECKS = Path(__file__).with_name("second_device_checks.py")


@pytest.mark.apart
@pytest.mark.skipif(bool(second_device.LACKS), reason=second_device.LACKS)
def test_the_product_runs_on_a_second_device_as_on_the_cpu(own_cache):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run([*command, str(CHECKS)], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
