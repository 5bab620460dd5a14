#!/usr/bin/env bash
# nbconvert 7.17.2.
#
# A picture in the output of a cell can have a text for screen readers in its metadata, under the type of the picture and
# "alt", or in the metadata of the cell. The templates classic and basic write it into the page. The template lab, which
# is the default of `jupyter nbconvert --to html`, does not, and the exporter then fills in that there is no description. So a
# notebook whose author has described each picture is exported as one without descriptions, unless another template is named.
#
# Seen (template: the text is in the page, the exporter's sentence is): lab False True, classic and basic True False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nbconvert==7.17.2
cd "$folder"
"$folder/venv/bin/python" - <<'P'
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
text = "one pixel of grey"
output = new_output("display_data", data={"image/png": pixel}, metadata={"image/png": {"alt": text}})
notebook = new_notebook(cells=[new_code_cell("draw()", outputs=[output], metadata={"alt": text})])
expected = {"lab": (False, True), "classic": (True, False), "basic": (True, False)}
for template, seen in expected.items():
    page, _ = HTMLExporter(template_name=template).from_notebook_node(notebook)
    found = f'alt="{text}"' in page, "No description has been provided" in page
    print(template, *found)
    assert found == seen
assert HTMLExporter().template_name == "lab"
P
