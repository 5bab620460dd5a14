"""The notebook from top to bottom: as committed, and run at a small size with other pictures."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pillow_heif
import pytest
from definitions import NOTEBOOK, source_digest, sources
from mutants import MUTANTS
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image

ROOT = NOTEBOOK.parent


@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def test_mutants_are_of_code_that_is_still_there():
    assert not [name for name, code, *_ in MUTANTS if code not in "\n".join(sources())]


def test_committed_outputs_are_of_one_clean_run_of_this_code(committed):
    code = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {output["output_type"] for output in outputs} <= {
        "stream", "display_data", "execute_result",
    }  # fmt: skip
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert committed["metadata"]["outputs_of_source"] == source_digest(committed)
    assert NOTEBOOK.stat().st_size < 5e6


MEASURED = {  # words of the prose: the pattern of outputs whose numbers they are of, ratio or number, range
    "takes about a minute on two processor cores": (r"Wall time: (?:(\d+)min ?)?(?:([\d.]+) ?s)?", 40, 75),
    "style loss falls to about a sixth": (r"step 0: .*'style': ([\d.]+).*\nstep 10: .*'style': ([\d.]+)", 0.145, 0.185),
    "the content loss only to 0.86": (r"step 10: {'content': ([\d.]+)", 0.855, 0.865),
    "falls to less than half of that": (r"step 10: {'content': ([\d.]+).*\n.*\nstep 60: {'content': ([\d.]+)", 0.4, 0.5),
}  # fmt: skip
CHOSEN = {"0.01", "0.02", "0.03", "2.5"}  # decimals of the prose that are no measurements


def test_numbers_in_the_prose_are_those_of_the_outputs(committed):
    """Each phrase is there and holds, and no other decimal number is in the prose."""
    code = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    texts = ["".join(output.get("text", "")) for cell in code for output in cell["outputs"]]
    prose = "\n".join("".join(c["source"]) for c in committed["cells"] if c["cell_type"] == "markdown")
    for words, (pattern, low, high) in MEASURED.items():
        assert words in prose, words
        (found,) = re.findall(pattern, "".join(texts))
        first, *second = [
            float(number or 0) for number in ([found] if isinstance(found, str) else found)
        ]
        value = 60 * first + second[0] if "Wall" in pattern else second[0] / first if second else first
        assert low <= value <= high, (words, value)
    for left_out in (r"```.*?```", r"\$\$.*?\$\$", r"`[^`]*`", r"\$[^$]*\$", r"\([^)]*\)", *MEASURED):
        prose = re.sub(left_out, "", prose, flags=re.DOTALL)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith("|"))
    assert set(re.findall(r"\d+\.\d+", prose)) <= CHOSEN


def test_every_picture_of_a_page_exists_and_has_a_text(committed):
    pages = ["".join(c["source"]) for c in committed["cells"] if c["cell_type"] == "markdown"]
    pages.append((ROOT / "README.md").read_text(encoding="utf-8"))
    images = re.findall(r"<img[^>]*>", "".join(pages))
    assert images
    for image in images:
        assert re.search(r'alt="[^"]{10,}"', image), image
        assert (ROOT / re.search(r'src="([^"]+)"', image)[1]).is_file(), image


def test_pictures_in_assets_are_credited_and_used(committed):
    credits = (ROOT / "assets" / "CREDITS.md").read_text(encoding="utf-8")
    text = "".join("".join(cell["source"]) for cell in committed["cells"])
    text += (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "assets").iterdir():
        assert path.name == "CREDITS.md" or (path.name in credits and path.name in text), path.name


def test_no_function_is_used_before_its_definition_and_no_knob_is_assigned_again(committed):
    cells = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    knobs, defined, functions = set(), set(), set()
    trees = [ast.parse(source) for source in sources(committed)]
    for tree in trees:
        functions |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for cell, tree in zip(cells, trees, strict=True):
        top = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
        names = [n for node in top for n in ast.walk(node) if isinstance(n, ast.Name)]
        stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
        defined |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} & functions
        arguments = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        assert loaded - arguments <= defined
        assert not stored & knobs
        if "parameters" in cell["metadata"].get("tags", []):
            knobs = stored
    assert len(knobs) == 8


def papermill(folder, *options, edits=()):
    """Run the notebook, with pieces of its code replaced, in a folder with its assets.

    Return what papermill printed, with its status, and the notebook that was run.
    """
    shutil.copytree(ROOT / "assets", folder / "assets")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in edits:
        cells = [c for c in notebook.cells if c.cell_type == "code" and old in c.source]
        assert cells, old
        for cell in cells:
            cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, folder / "in.ipynb")
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--stdout-file", "-"]
    run = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)
    return run, json.loads((folder / "out.ipynb").read_text(encoding="utf-8"))


EDITS = [  # what a reader may change in the cells of parts I, III and IV
    ("targets, style_weight=style_weight, learning_rate", "targets, style_weight=2, learning_rate"),
    ("for weight in (30, 5)", "for weight in (20, 1)"),
    ("one_size = [(1, 60, 0, 3", "one_size = [(1, 60, 3, 2"),
    ("for w in (0.3, 30, 3000)", "for w in (0, 5)"),
    ("for scale in (0.75, 1.5, 3)", "for scale in (1, 2)"),
    ("for rate in (0.02, 1, 3)", "for rate in (0.5, 10)"),
    ("lr=0.03", "lr=0.1"),
    ("style_weight=0.3, **at_one_size", "style_weight=7, **at_one_size"),
    ('("relu2_1", "relu4_1", "relu5_1")', '("relu1_1", "relu4_2")'),
    ("for count in (1, 3, 5)", "for count in (2, 4)"),
    ('load_image("assets/mountains.jpg", large_size)', 'load_image("assets/dogs.jpg", large_size)'),
    ("for count in (1, 2, 3)", "for count in (2,)"),
    ("match=False, style_weight=3", "match=False, style_weight=30"),
    ('("cat.jpg", "CREDITS.md", "dogs.jpg")', '("CREDITS.md", "astronaut.jpg")'),
]


def test_the_whole_notebook_runs_after_edits_with_an_upright_photograph(tmp_path):
    """The camera stored it on its side, and the painting is a panorama."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(ROOT / "assets" / "dogs.jpg").resize((150, 225)).rotate(90, expand=True)
    stored.save(tmp_path / "my dog.jpg", exif=exif)
    panorama = Image.open(ROOT / "assets" / "the-scream.jpg").resize((700, 200))
    panorama.save(tmp_path / "painting.png")
    knobs = {"content_path": "my dog.jpg", "style_path": "painting.png", "output_dir": "mine/new"}
    options = [word for name, value in knobs.items() for word in ("-p", name, value)]
    run, out = papermill(tmp_path, "-p", "image_size", "64", *options, edits=EDITS)
    assert run.returncode == 0, run.stderr[-3000:]
    assert not list((tmp_path / "mine" / "new").glob("*unfinished*"))
    with Image.open(tmp_path / "mine" / "new" / "my dog.jpg-in-painting.png") as result:
        assert result.size == (64, 96)
    with Image.open(tmp_path / "mine" / "new" / "my dog.jpg-in-painting.gif") as gif:
        assert gif.n_frames >= 3
    code = [cell for cell in out["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)


def test_without_experiments_the_run_ends_well_after_the_result(tmp_path):
    """With a HEIC photograph. Cells after the exit are not run, and the status is 0."""
    picture = Image.open(ROOT / "assets" / "summer-palace.jpg").resize((120, 80))
    pillow_heif.from_pillow(picture).save(tmp_path / "phone.heic")
    options = ["-p", "content_path", "phone.heic", "-p", "image_size", "64"]
    run, out = papermill(tmp_path, *options, "-p", "experiments", "False")
    assert run.returncode == 0, run.stderr[-3000:]
    with Image.open(tmp_path / "results" / "phone.heic-in-starry-night.png") as result:
        assert result.size == (96, 64)
    assert "picture 0: {'content':" in run.stdout
    assert "so the run ends here" in run.stdout
    code = [cell for cell in out["cells"] if cell["cell_type"] == "code"]
    ran = [bool(cell["execution_count"]) for cell in code]
    assert ran == sorted(ran, reverse=True)
    assert not ran[-1]


def test_papermill_fails_with_the_name_of_a_missing_file(tmp_path):
    run, _ = papermill(tmp_path, "-p", "content_path", "nowhere.jpg")
    assert run.returncode != 0
    assert "nowhere.jpg" in run.stderr


def test_photographs_with_similar_names_keep_their_results():
    (source,) = [s for s in sources() if "path = Path(output_dir" in s]
    line = source.splitlines()[0]
    names = [
        "WhatsApp Image 2026-05-12 at 10.22.33 AM.jpeg",
        "WhatsApp Image 2026-05-12 at 10.22.33 AM (1).jpeg",
        "phone.heic",
        "phone.jpg",
    ]
    results = []
    for name in names:
        found = {"Path": Path, "output_dir": "results", "content_path": name, "style_path": "wave.jpg"}
        exec(line, found)
        results.append(found["path"].name)
    assert results == [f"{name}-in-wave.png" for name in names]


def test_exported_pages_show_every_picture_and_the_texts_of_gifs(committed):
    page, _ = HTMLExporter().from_notebook_node(nbformat.read(NOTEBOOK, as_version=4))
    outputs = [o for c in committed["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    figures = [o for o in outputs if "image/jpeg" in o.get("data", {})]
    gifs = [o for o in outputs if "image/gif" in "".join(o.get("data", {}).get("text/html", ""))]
    assert page.count("data:image/jpeg;base64,") == len(figures) > 20
    texts = re.findall(r'<img alt="([^"]{10,})" src="data:image/gif', page)
    assert len(texts) == len(gifs) == 3


def test_the_kernel_goes_on_after_the_exit():
    code = nbformat.v4.new_code_cell
    (source,) = [source for source in sources() if "SystemExit" in source]
    cells = [code("experiments = False"), code(source), code("print('still here')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, allow_errors=True)
    client.execute()
    assert "still here" in str(cells[2].outputs)
