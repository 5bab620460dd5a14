"""Break the notebook in many ways, and see for each that the tests notice.

python tests/mutants.py [WORD ...]

Each replaces a piece of the notebook's code in a copy of the project, and runs the tests that should
catch it. With words, only those with one of them in their name are run. All take about ten minutes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from definitions import NOTEBOOK

IMAGES, METHOD = "test_images.py", "test_method.py"
TRANSPORT = "transport_colours(image, style), size), losses"
MARGIN = "TF.center_crop(image, size)"
PRIMARIES, DEPTH = "not {9, 11, 12, 16, 18}", 'picture.mode[0] not in "IF"'
PREVIEW, ALPHA = 'not getattr(picture, "tag_v2"', "alpha.getbbox() and"
MUTANTS = [  # name, code, what replaces it, file of the tests and words for those that should fail
    ("EXIF is ignored", "picture = ImageOps.exif_transpose(picture)", "", IMAGES, "upright"),
    ("broken files name no path", "except Exception as error", "except KeyError as error", IMAGES, "broken_file"),
    ("transparency is black", '"white"', '"black"', IMAGES, "lie_on_white"),
    ("profiles are ignored", 'embedded := picture.info.get("icc_profile")', "embedded := None", IMAGES, "srgb"),
    ("a huge JPEG is decoded whole", "picture.draft(None, (2 * size, 2 * size))", "", IMAGES, "huge"),
    ("values are not clamped", "image[0].clamp(0, 1)", "image[0]", IMAGES, "clamped"),
    ("16 bits are passed over", DEPTH, f"True or {DEPTH}", IMAGES, "8_bits"),
    ("tiny pictures pass", "assert min(picture.size) >= 64", "assert True", IMAGES, "tiny"),
    ("HDR is passed over", PRIMARIES, f"True or {PRIMARIES}", IMAGES, "wide"),
    ("a profile does not help", 'if "icc_profile" in picture.info', "if False", IMAGES, "profile_goes"),
    ("a preview is passed over", PREVIEW, f"True or {PREVIEW}", IMAGES, "preview"),
    ("no alpha is passed over", ALPHA, "", IMAGES, "fourth_byte"),
    ("GIFs play once", "loop=0", "loop=1", IMAGES, "gifs"),
    ("GIFs do not rest at their end", "+ [2000]", "+ [120]", IMAGES, "gifs"),
    ("all frames are kept", "frames, every = frames[::2], 2 * every", "pass", METHOD, "long_run"),
    ("colours keep their mean", " + new_mean\n", " + mean\n", IMAGES, "mean"),
    ("colours keep their spread", "new_spread / spread", "spread / spread", IMAGES, "spread"),
    ("noise is blown up", "spread.clamp(min=0.03)", "spread", IMAGES, "empty"),
    ("colours are matched in red, green and blue", "[[1.0, 1, 1], [1, 1, -2], [1, -1, 0]]", "[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]", IMAGES, "mean"),
    ("colours go along one set of axes", "range(10)", "range(1)", IMAGES, "transported"),
    ("single pixels are transported", "for parts in (256, 64)", "for parts in (9999, 9999)", IMAGES, "grain"),
    ("detail is lost in the transport", "(image + TF.gaussian_blur(x", "(smooth + TF.gaussian_blur(x", IMAGES, "areas"),
    ("changes of colours are not blurred", "TF.gaussian_blur(x.view(image.shape) - smooth, wide)", "x.view(image.shape) - smooth", IMAGES, "grain"),
    ("lightness goes the wrong way", "(photograph + change)", "(photograph - change)", IMAGES, "lightness"),
    ("red and blue change places", "255 * image.flip(1)", "255 * image", METHOD, "second_implementation"),
    ("a layer is another one", '"relu4_1": 20', '"relu4_1": 18', METHOD, "second_implementation"),
    ("the network runs to its end", "vgg[: 1 + max(LAYERS[name] for name in layers)]", "vgg", METHOD, "chain"),
    ("Gram matrices are sums", "F.mT @ F / F.shape[1]", "F.mT @ F", METHOD, "by_hand"),
    ("the means stay in Gram matrices", "/ F.shape[1] - mean.mT @ mean", "/ F.shape[1]", METHOD, "by_hand"),
    ("errors are sums over layers", "/ max(1, len(errors))", "", METHOD, "by_hand"),
    ("errors have no weights", "(w * (v[k] - t)", "((v[k] - t)", METHOD, "by_hand"),
    ("a frame is missing", "[*frames[::3], frames[-1]]", "frames[::3]", METHOD, "part_one"),
    ("places count alike", "s[k] / (s[k] * P[k].square()).mean()", "1 / P[k].square().mean()", METHOD, "places"),
    ("the photograph's style is left out", "A[k].square() + G_P[k].square()", "A[k].square()", METHOD, "start_are"),
    ("the first step is too long", "0.02 * start.numel()", "0.1 * start.numel()", METHOD, "fiftieth"),
    ("the style has the wrong sign", "* content_loss + style_weight", "* content_loss - style_weight", METHOD, "loop_of"),
    ("the weight of the content is lost", "content_weight * content_loss", "content_loss", METHOD, "decide"),
    ("content without weight is measured", "CONTENT_LAYERS if content_weight else []", "CONTENT_LAYERS", METHOD, "without_weight"),
    ("a spike is the result", "if loss < lowest:", "if True:", METHOD, "never_the_result"),
    ("nobody goes back", "if not loss < 2 * lowest:", "if False:", METHOD, "never_the_result"),
    ("nan goes on", "assert step or loss.isfinite()", "assert True", METHOD, "no_numbers"),
    ("frames are too few", "every = [], [], 5", "every = [], [], 50", METHOD, "every_fifth"),
    ("unfinished replaces finished", 'path.with_stem(f"{path.stem}-unfinished")', "path", METHOD, "stop"),
    ("the margin is not cut off", MARGIN, "image", METHOD, "coarse_to_fine or margin"),
    ("there is no margin", "MARGIN = 16", "MARGIN = 0", METHOD, "margin"),
    ("sizes are too small", "smallest // 32", "smallest // 8", METHOD, "side_of_the_photograph"),
    ("a small painting is made too small", "shape[2:], *style.shape[2:])", "shape[2:])", METHOD, "side_of_the_painting"),
    ("noise does not ask the painting", "noise * detail *", "noise * 0.02 *", METHOD, "noise"),
    ("the painting stays sharp", "small[0], smooth, content", "small[0], small[1], content", METHOD, "margin"),
    ("noise is coloured", "torch.randn_like(small[0][:, :1])", "torch.randn_like(small[0])", METHOD, "noise"),
    ("frames have two sizes", "frame.resize(last.size) for frame", "frame for frame", METHOD, "long_run"),
    ("colours are transported always", "    if match:\n", "    if True:\n", METHOD, "matching_can"),
    ("the rate of the first step stays", '["lr"] = learning_rate', '["lr"] *= 1', METHOD, "loop_of or part_one or never"),
    ("noise differs in each run", "torch.manual_seed(5)", "torch.seed()", METHOD, "repeated"),
    ("colours are not transported", TRANSPORT, "image, size), losses", METHOD, "transports"),
    ("colours are always matched", "match_colours(content, style) if match else", "match_colours(content, style) if True else", METHOD, "turned_off"),
    ("the start is ignored", "image = target if start is None else", "image = target if True else", METHOD, "start_is_used"),
    ("masks of any shape pass", "assert 0.97 <", "assert 0 <", METHOD, "another_shape"),
    ("strips have no halo", 'halo = 16 if', 'halo = 0 if', METHOD, "strips"),
    ("strips leave the means in", "products[k] - means[k].mT @ means[k]", "products[k]", METHOD, "strips"),
    ("masks have one mean", "mean = T.mT @ F", "mean = F.mean(1, keepdim=True)", METHOD, "its_own_half"),
    ("masks are not divided", "T / T.sum(1, keepdim=True)", "T / T.shape[1]", METHOD, "its_own_half"),
]  # fmt: skip


def run(code, replacement, file, words):
    """Return the names of the tests that fail with the mutant, and what pytest printed."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = "".join(cell["source"]).replace(code, replacement)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(NOTEBOOK.parent / "tests", Path(folder, "tests"))
        (Path(folder) / "assets").symlink_to(NOTEBOOK.parent / "assets")
        Path(folder, NOTEBOOK.name).write_text(json.dumps(notebook), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-qpno:cacheprovider", f"tests/{file}", "-k", words]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    return sorted(set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE))), done.stdout


def main():
    words, survived = sys.argv[1:], []
    for name, *mutant in MUTANTS:
        if words and not any(word in name for word in words):
            continue
        failed, printed = run(*mutant)
        if not failed:
            survived.append(name)
        print(f"{name}: {', '.join(failed) or 'SURVIVED, ' + printed.splitlines()[-1]}", flush=True)
    print(f"{len(survived)} survived: {survived}")
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
