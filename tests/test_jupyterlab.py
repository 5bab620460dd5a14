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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test JupyterLab")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="apt-get install chromium to test JupyterLab")
KNOBS = {"image_size": 64}

PRINTED_OR_FAILED = """(words) => [...document.querySelectorAll('.jp-OutputArea-output')].some(
    (output) => output.textContent.includes(words)
        || output.dataset.mimeType?.endsWith('error'))"""


@pytest.fixture
def server(tmp_path):
    """The address of a JupyterLab with the notebook, with other knobs and without outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            for name, value in KNOBS.items():
                source, count = re.subn(
                    rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE
                )
                assert count == 1
            cell["source"] = source
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
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
    sessions(server, {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}})
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
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=120_000)
        page.click(".lm-MenuBar-item:has-text('Run')")
        page.click(".lm-Menu-item:has-text('Run All Cells') >> nth=0")
        yield page
        browser.close()


def test_run_all_cells(page, tmp_path):
    page.wait_for_function(PRINTED_OR_FAILED, arg="the end", polling=1000, timeout=900_000)
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    gifs = page.locator("img[src^='data:image/gif']")
    assert gifs.count() == 3
    gifs.first.scroll_into_view_if_needed()
    shots = set()
    for _ in range(30):
        shots.add(gifs.first.screenshot())
        page.wait_for_timeout(150)
    assert len(shots) > 2
    page.screenshot(path=os.environ.get("JUPYTERLAB_SCREENSHOT", tmp_path / "jupyterlab.png"))
    assert (tmp_path / "results" / "summer-palace-in-starry-night.png").exists()
