"""Compare the notebooks with their stored outputs in other places: `make places`, or `make places AT=scalar`.

Each place is a copy of what git has staged or committed, in which pytest runs `--nbval`. `AT=today` takes the
place whose turn it is, so that CI comes to all of them. Read-only and offline need Linux's `unshare`; the
oldest and the newest versions need `uv`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
SECONDS_A_DAY = 86_400
READ_ONLY = 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && exec "$@"'
OFFLINE = 'ip link set lo up && exec "$@"'
STRICT = "import warnings\nwarnings.simplefilter('error')\n"


@dataclass
class Place:
    """Where the notebooks run: variables, the shell line in front in namespaces of its own, the versions."""

    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "course"
    namespaces: str = ""
    shell: str = ""
    versions: str = ""  # as uv calls them


PLACES = {
    "scalar": Place({"ATEN_CPU_CAPABILITY": "default"}),
    "avx2": Place({"ATEN_CPU_CAPABILITY": "avx2"}),
    "avx512": Place({"ATEN_CPU_CAPABILITY": "avx512"}),
    "threads": Place({"OMP_NUM_THREADS": "2"}),
    "ascii": Place(
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati"}
    ),
    "spaces": Place(folder="a home/of one's own/a course"),
    "read-only": Place({"PYTHONDONTWRITEBYTECODE": "1"}, namespaces="--mount", shell=READ_ONLY),
    "offline": Place(namespaces="--net", shell=OFFLINE),
    "warnings": Place({"IPYTHONDIR": "{home}/strict"}),
    "oldest": Place(versions="lowest-direct"),
    "newest": Place(versions="highest"),
}


def run(command: list[str], **options) -> None:
    """Run `command`; one that fails ends the program with its own message."""
    subprocess.run(command, check=True, **options)


@contextmanager
def copied(place: Place) -> Iterator[tuple[Path, Path]]:
    """Yield a home and, in it, a copy of the course."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, course = Path(folder), Path(folder) / place.folder
        course.mkdir(parents=True)
        run(["git", "checkout-index", "--all", f"--prefix={course}/"], cwd=ROOT)
        startup = home / "strict" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "strict.py").write_text(STRICT)
        yield home, course


def python(place: Place, home: Path) -> str:
    """Return the Python to use: this one, or one of its own with the versions that `place` asks for."""
    if not place.versions:
        return sys.executable
    pins = home / "pins.txt"
    torch = next(line.split()[0] for line in (ROOT / "requirements.txt").open() if line.startswith("torch=="))
    (home / "torch.txt").write_text(torch)  # other versions of torch have no build without CUDA everywhere
    options = [f"--resolution={place.versions}", f"--constraint={home}/torch.txt", f"--output-file={pins}"]
    run(["uv", "pip", "compile", "--quiet", "--group=test", *options, "pyproject.toml"], cwd=ROOT)
    kept = [
        line for line in pins.read_text().splitlines() if not line.startswith(("cuda", "nvidia", "triton"))
    ]
    pins.write_text("\n".join(kept))
    run([sys.executable, "-m", "venv", f"{home}/venv"])
    install = [f"{home}/venv/bin/python", "-m", "pip", "install", "--quiet", "--no-deps"]
    index = os.environ.get("TORCH_INDEX")
    run([*install, *([f"--index-url={index}"] if index else []), torch])
    run([*install, f"--requirement={pins}"])
    return f"{home}/venv/bin/python"


def compare(name: str, notebooks: list[str]) -> int:
    """Run nbval at the place called `name` and return its exit status."""
    place = PLACES[name]
    with copied(place) as (home, course):
        command = [python(place, home), "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
        command += ["--numprocesses=2", "--dist=loadfile", *(notebooks or ["notebooks"])]
        if place.shell:
            command = [
                "unshare",
                "--map-root-user",
                place.namespaces,
                "sh",
                "-c",
                place.shell,
                "sh",
                *command,
            ]
        variables = {key: value.format(home=home) for key, value in place.variables.items()}
        paths = {"HOME": str(home), "PYTHONPATH": str(course)}
        return subprocess.run(command, cwd=course, env=os.environ | paths | variables).returncode


def main(names: list[str], notebooks: list[str]) -> None:
    """Compare at each place, and end with the names of those where something differed."""
    if names == ["today"]:
        names = [list(PLACES)[int(time.time() / SECONDS_A_DAY) % len(PLACES)]]
    if unknown := [name for name in names if name not in PLACES]:
        sys.exit(f"There is no place {unknown[0]!r}; there are {', '.join(PLACES)}, and today.")
    failed = [
        name for name in names or PLACES if print(f"--- {name}", flush=True) or compare(name, notebooks)
    ]
    sys.exit(f"Something differs: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    given = sys.argv[1:]
    main([a for a in given if not a.endswith(".ipynb")], [a for a in given if a.endswith(".ipynb")])
