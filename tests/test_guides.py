"""Every block of the guides is executed, and prints what the guide says it prints."""

import doctest
import re
import textwrap
from pathlib import Path

import pytest
import torch

from tests.processes import in_two_processes

GUIDES = Path(__file__).parents[1] / "examples" / "guides"
SCRIPTS = {"several_gpus.md"}  # run in processes of their own, below
PAGES = sorted(path.name for path in GUIDES.glob("*.md"))


def blocks(page):
    """Its blocks in order, as (language, text)."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```", (GUIDES / page).read_text(), re.DOTALL | re.MULTILINE)
    return [(language, textwrap.dedent(text)) for _, language, text in found]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md" and page not in SCRIPTS])
def test_a_guide_runs_from_top_to_bottom(page, capsys):
    torch.manual_seed(0)
    names, printed, ran = {}, "", 0
    for language, text in blocks(page):
        if language == "python":
            assert not printed, f"{page} does not show that it prints {printed!r}"
            exec(compile(text, page, "exec"), names)
            printed, ran = capsys.readouterr().out, ran + 1
        elif language == "text":
            assert doctest.OutputChecker().check_output(text, printed, doctest.ELLIPSIS), f"{page} prints {printed}"
            printed = ""
    assert ran
    assert not printed


def on_several_gpus(rank):
    ((_, script),) = [block for block in blocks("several_gpus.md") if block[0] == "python"]
    names = {"__name__": "train"}
    exec(compile(script, "train.py", "exec"), names)
    awc = names["main"](torch.device("cpu"))
    assert [row["epoch"] for row in awc.history] == [1, 2]


def test_the_script_for_several_gpus_runs_in_two_processes(tmp_path):
    in_two_processes(on_several_gpus, tmp_path)


def links(page):
    return re.findall(r"\]\(([\w./]+\.md)\)", (GUIDES / page).read_text())


def test_the_index_lists_every_guide():
    assert sorted(links("README.md")) == [page for page in PAGES if page != "README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_guide_lead_somewhere(page):
    assert all((GUIDES / target).exists() for target in links(page))
