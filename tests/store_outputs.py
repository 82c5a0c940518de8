"""Run the notebooks named on the command line in place and store their outputs (`make outputs`).

Two runs write the same bytes: what changes from run to run (timings, the random ids of widgets, how prints
are cut into messages) or from machine to machine (the Python version) is not stored. `jupyter nbconvert` has
no option for the ids and ignores the one for prints.
"""

import base64
import io
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

README_PICTURE = Path(__file__).parent.parent / ".github" / "overview.png"
README_NOTEBOOK = "00_start_here.ipynb"

NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"slideshow", "tags", "jupyter", "claims"}  # jupyter: answers are stored collapsed
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def last_picture(notebook: NotebookNode) -> bytes:
    """Return the last PNG image among the outputs: in notebook 00 it is also the README's picture."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return base64.b64decode([data["image/png"] for data in outputs if "image/png" in data][-1])


def with_palette(png: str) -> str:
    """Return a base64 PNG image with at most 256 colours: the eye misses none in a figure."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def execute(path: Path) -> None:
    """Run the notebook at `path`; the file changes only if every cell succeeds."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=None,
        extra_arguments=["--log-level=ERROR"],  # ipykernel warns that localhost is not encrypted
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
    ).execute()
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in CELL_METADATA})
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            if "image/png" in data:
                data["image/png"] = with_palette(data["image/png"])
    nbformat.write(notebook, path)
    if path.name == README_NOTEBOOK:
        README_PICTURE.write_bytes(last_picture(notebook))


def main(paths: list[str]) -> None:
    for path in paths:
        start = time.perf_counter()
        try:
            execute(Path(path))
        except CellExecutionError as error:
            sys.exit(f"{path} stops here and was left as it was:\n{error}")
        print(f"{path}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    os.environ["COURSE_PROGRESS"] = os.devnull  # nobody's record counts
    main(sys.argv[1:])
