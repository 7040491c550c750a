#!/usr/bin/env python3
"""Makes a virtual environment of Python packages for the tests.

    ci/environment.py NAME    makes target/tools/NAME from the packages in ci/NAME.txt

The packages are wheels, and pip3 takes only those whose hashes are in the file. An environment of the same file
stays.
"""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def install(name):
    environment = ROOT / "target/tools" / name
    requirements = ROOT / f"ci/{name}.txt"
    stamp = environment / "requirements.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return
    print(f"making {environment.relative_to(ROOT)}", file=sys.stderr)
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", requirements], check=True)
    except subprocess.CalledProcessError:
        # A test takes the environment for whole if it is there.
        shutil.rmtree(environment)
        sys.exit(1)
    shutil.copy(requirements, stamp)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (ROOT / f"ci/{sys.argv[1]}.txt").exists():
        print(__doc__.strip(), file=sys.stderr)
        sys.exit(2)
    install(sys.argv[1])
