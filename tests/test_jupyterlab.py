"""The notebook in JupyterLab, as a reader runs it: in a browser, by Run All Cells."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from definitions import NOTEBOOK
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="pip install playwright to test JupyterLab"
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="apt-get install chromium to test JupyterLab")
SMALL = {"image_size": 64, "num_steps": 8, "experiment_size": 64}
LONG = {**SMALL, "num_steps": 10_000, "experiments": False}
RUN_OF_THE_RESULT = ".jp-CodeCell:has-text('result, result_history = watch')"

WATCH = """() => {
    window.previews = new Set();
    const look = () => document.querySelectorAll('.jp-OutputArea-output img').forEach((image) => {
        if (image.src.startsWith('data:image/jpeg')) window.previews.add(image.src);
    });
    const what = {subtree: true, childList: true, attributes: true};
    new MutationObserver(look).observe(document.body, what);
}"""

PRINTED_OR_FAILED = """(words) => [...document.querySelectorAll('.jp-OutputArea-output')].some(
    (output) => output.textContent.includes(words)
        || output.dataset.mimeType?.endsWith('error'))"""


@pytest.fixture
def server(tmp_path, request):
    """The address of a JupyterLab with the notebook, with other knobs and without outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    replaced = 0
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            for name, value in request.param.items():
                source, count = re.subn(
                    rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE
                )
                assert count == 1
            cell["source"] = source
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for large, small in (('cat.jpg"), 160)', "64"), ('night.jpg"), 240)', "96")):
                replaced += source.count(large)
                source = source.replace(large, f"{large.split()[0]} {small})")
            cell.update(source=source, outputs=[], execution_count=None)
    assert replaced == 2
    end = {"cell_type": "code", "id": "the-end", "metadata": {}, "source": "print('the end')"}
    notebook["cells"].append({**end, "outputs": [], "execution_count": None})
    (tmp_path / NOTEBOOK.name).write_text(json.dumps(notebook), encoding="utf-8")
    shutil.copytree(NOTEBOOK.parent / "assets", tmp_path / "assets")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=test"]
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment["JUPYTER_CONFIG_DIR"] = str(tmp_path / "config")  # not the user's own settings
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options], cwd=tmp_path, env=environment
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token=test")
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail("JupyterLab did not start")
        yield address
    finally:
        process.kill()
        process.wait()


def sessions(server, body=None):
    """What the server answers to GET, or with a body to POST, of its list of kernels."""
    request = urllib.request.Request(
        f"{server}/api/sessions?token=test", body and json.dumps(body).encode()
    )
    return json.load(urllib.request.urlopen(request, timeout=60))


@pytest.fixture
def page(server):
    """The notebook in JupyterLab, after Run All Cells was chosen."""
    # JupyterLab looks idle before its kernel is there. Cells that are run then can be lost.
    name = NOTEBOOK.name
    sessions(
        server, {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(f"{server}/lab/tree/{name}?token=test")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=120_000)
        for _ in range(240):
            kernel = next((session["kernel"] for session in sessions(server)), {})
            if kernel.get("connections") and kernel["execution_state"] == "idle":
                break
            page.wait_for_timeout(500)
        else:
            pytest.fail(f"JupyterLab did not connect to its kernel: {kernel}")
        page.wait_for_selector(
            ".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=120_000
        )
        page.evaluate(WATCH)
        page.click(".lm-MenuBar-item:has-text('Run')")
        page.click(".lm-Menu-item:has-text('Run All Cells') >> nth=0")
        yield page
        browser.close()


def wait_for(page, words):
    """Wait until a cell printed these words, or failed."""
    page.wait_for_function(PRINTED_OR_FAILED, arg=words, polling=1000, timeout=900_000)
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0


@pytest.mark.parametrize("server", [SMALL], indirect=True)
def test_run_all_cells(page, tmp_path):
    wait_for(page, "the end")
    assert page.evaluate("() => window.previews.size") > 30
    gifs = page.locator("img[src^='data:image/gif']")
    assert gifs.count() == 4
    gifs.first.scroll_into_view_if_needed()
    shots = set()
    for _ in range(30):
        shots.add(gifs.first.screenshot())
        page.wait_for_timeout(150)
    assert len(shots) > 2
    page.screenshot(path=os.environ.get("JUPYTERLAB_SCREENSHOT", tmp_path / "jupyterlab.png"))
    assert (tmp_path / "results" / "cat-in-starry-night.png").exists()


@pytest.mark.parametrize("server", [LONG], indirect=True)
def test_stop_keeps_the_picture(page, tmp_path):
    cell = page.locator(RUN_OF_THE_RESULT)
    cell.locator("img").wait_for(timeout=600_000)
    page.click("[data-command='notebook:interrupt-kernel']")
    wait_for(page, "The cells below are skipped")
    assert "Stopped after" in cell.text_content()
    assert cell.locator("img[src^='data:image/gif']").count() == 1
    cell.scroll_into_view_if_needed()
    page.screenshot(path=os.environ.get("STOP_SCREENSHOT", tmp_path / "stop.png"))
    (saved,) = (tmp_path / "results").glob("*.png")
    assert saved.name == "cat-in-starry-night-unfinished.png"
    assert min(Image.open(saved).size) in (32, 64)  # half the size, or all of it
