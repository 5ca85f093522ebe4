import errno
import os
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from awc_balance import AWCRegularizer, FisherDiagonal, ShapleyContribution
from awc_balance.diagnose import Measured
from awc_balance.history import read_history
from awc_balance.report import report
from awc_balance.report.axis import axis
from awc_balance.report.files import write_whole
from awc_balance.report.markup import Markup, element
from awc_balance.report.words import held_back
from tests.calibration.test_rule import TRAIN, Two, rule_of
from tests.models import Concat, build, loader_of
from tests.report.examples import HARMFUL_NAME, calibrated, everything, judged

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Elements, attributes and text of a page; refuses elements that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(path):
    return Reader(Path(path).read_text(encoding="utf-8"))


def test_a_report_of_a_real_run(tmp_path):
    model = build(Concat, modalities=3)
    loader = loader_of(model, 4)
    awc = AWCRegularizer(model, model.encoders, torch.nn.functional.mse_loss, window=2)
    for _ in range(2):
        awc.start_epoch(loader)
        awc.history[-1] |= {"loss": 0.5, "penalty": 0.01}
    result = ShapleyContribution(model, model.encoders).evaluate(loader)
    fisher = FisherDiagonal(model.encoders, "per_batch")
    fisher.estimate(loader, model, torch.nn.functional.mse_loss)
    page = read(report(awc.history, tmp_path / "page.html", contributions=result, fisher=fisher.compute()))
    assert page.elements.count("figure") == 5
    for modality, value in result.items():
        assert f"{value:.3g}" in page.text
        assert modality in page.text
    assert "The penalty is at most 2 % of the loss." in page.text


def test_everything_is_in_the_file_and_nothing_runs(tmp_path):
    file = everything(tmp_path / "page.html")
    page, text = read(file), file.read_text()
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(page.elements)
    assert not {"src", "href", "xlink:href", "srcset"} & set(page.attributes)
    assert not any(name.startswith("on") for name in page.attributes)
    assert "url(" not in text
    assert "@import" not in text
    assert 'http-equiv="Content-Security-Policy" content="default-src &#x27;none&#x27;;' in text


def test_the_verdict_comes_first_and_its_numbers_stand_with_every_modality(tmp_path):
    page = read(everything(tmp_path / "page.html"))
    said = judged().sentences()
    assert said[0].startswith("Verdict: lidar overfits")
    places = [page.text.index(sentence) for sentence in [*said, "carries the prediction"]]
    assert places == sorted(places)
    assert "too large by0.3 [0.27, 0.33]" in page.text.replace("\n", "")


def test_a_verdict_alone_makes_a_report(tmp_path):
    page = read(report([], tmp_path / "page.html", verdict=judged()))
    assert judged().sentences()[0] in page.text


def test_without_a_verdict_the_report_says_how_to_get_one(tmp_path):
    page = read(report([], tmp_path / "page.html", contributions=Measured({"a": 1.0})))
    assert "verdict=awc.verdict(train_loader)" in page.text
    assert "verdict:" not in page.text.lower()
    assert "The verdict rests" not in page.text
    page = read(report([], tmp_path / "page.html", verdict=judged()))
    assert "verdict=awc.verdict(train_loader)" not in page.text


def test_a_report_of_a_training_with_the_rule(tmp_path):
    model = Two()
    awc = rule_of(model, batches=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(5):
        awc.start_epoch(TRAIN)
        for inputs, target in TRAIN:
            (torch.nn.functional.mse_loss(model(inputs), target) + awc()).backward()
            optimizer.step()
            optimizer.zero_grad()
    page = read(report(awc.history, tmp_path / "page.html", verdict=awc.verdict(TRAIN)))
    first = next(row["epoch"] for row in awc.history if row["alphas"]["noise"])
    assert f"The rule held back noise from epoch {first} on (strength up to " in page.text
    assert "It left signal alone." in page.text
    for row in awc.history:
        for data in ("training", "held_out"):
            low, high = row["slope_intervals"][data]["noise"]
            assert f"{row['slopes'][data]['noise']:.3g} [{low:.3g}, {high:.3g}]" in page.text


def test_what_the_rule_did_comes_before_the_figures_and_is_drawn(tmp_path):
    file = report(calibrated(), tmp_path / "page.html")
    page = read(file)
    said = "The rule held back lidar from epoch 5 on (strength up to 0.8). It left rgb, mmwave and <b"
    assert said in page.text
    assert page.elements.count("figure") == 1
    assert page.elements.count("circle") == 12 * 4 * 3
    assert 'stroke-dasharray="4 3"' in file.read_text()
    assert "12lidar0.4 [0.3, 0.5]1.02 [0.92, 1.12]25 %0.8" in page.text
    assert "the window is shaded" not in read(report([r | {"loss": 1.0} for r in calibrated()], file)).text


def slopes_row(epoch, strengths, intervals=True):
    slopes = dict.fromkeys(strengths, 0.9)
    ends = dict.fromkeys(strengths, (0.8, 1.0)) if intervals else {}
    return {
        "epoch": epoch,
        "slopes": {"held_out": slopes},
        "slope_intervals": {"held_out": ends},
        "alphas": strengths,
    }


@pytest.mark.parametrize(
    ("strengths", "said"),
    [
        ([0.0, 0.0], "held nobody back: no epoch's held-out data showed credibly"),
        ([0.0, 0.5, 1.0], "held back a from epoch 2 on (strength up to 1). A"),
        ([0.0, 0.5, 0.25], "held back a from epoch 2 on (strength up to 0.5, at last 0.25). A"),
        ([0.5, 0.25, 0.0], "held back a from epoch 1 to 2 (strength up to 0.5). A"),
        ([0.0, 0.25, 0.0], "held back a in epoch 2 (strength up to 0.25). A"),
        ([0.5, 0.0, 0.5], "held back a from epoch 1 on (with breaks, strength up to 0.5). A"),
    ],
)
def test_whom_the_rule_held_back_when_and_how_hard(strengths, said):
    rows = [slopes_row(epoch, {"a": strength}) for epoch, strength in enumerate(strengths, start=1)]
    assert f"The rule {said}" in held_back(read_history(rows))


def test_several_who_were_held_back_and_nobody_who_could_be_judged():
    rows = [slopes_row(1, {"a": 0.0, "b": 1.0, "c": 0.0}), slopes_row(2, {"a": 0.2, "b": 1.0, "c": 0.0})]
    assert "a from epoch 2 on (strength up to 0.2) and b from epoch 1 on" in held_back(read_history(rows))
    assert "left c alone" in held_back(read_history(rows))
    assert "too few held-out samples" in held_back(read_history([slopes_row(1, {"a": 0.0}, intervals=False)]))
    assert held_back(read_history([{"epoch": 1, "alphas": {"a": 1.0}}])) is None


def test_names_and_notes_are_escaped(tmp_path):
    file = everything(tmp_path / "page.html", notes=["<script>alert(1)</script>"], title="</title><b>")
    page = read(file)
    assert "b" not in page.elements
    assert "script" not in page.elements
    assert HARMFUL_NAME in page.text
    assert "<script>alert(1)</script>" in page.text


def test_every_chart_has_a_name_and_its_numbers(tmp_path):
    text = everything(tmp_path / "page.html").read_text()
    for figure in re.findall("<figure>.*?</figure>", text):
        assert re.search('<svg viewBox="[^"]+" role="img" aria-label="[^"]+"><title>', figure)
        assert "<table>" in figure


@pytest.mark.parametrize(
    ("history", "arguments", "said"),
    [
        ([], {}, "No contributions were measured"),
        ([{"epoch": 1, "contributions": {"a": 0.5}}], {}, "start of epoch 1"),
        ([{"epoch": 1, "fisher": {"a": 0.0}}, {"epoch": 2, "fisher": {"a": 0.0}}], {}, "0 %"),
        ([{"epoch": 1, "loss": float("nan"), "penalty": 1.0}, {"epoch": 2, "loss": float("inf")}], {}, "nan"),
        ([{"epoch": 1, "loss": 0.0, "penalty": 0.0}], {}, "epoch"),
        ([{"epoch": 1, "slopes": {"held_out": {"a": 1e300}}}], {}, "held nobody back"),
        ([{"epoch": 1, "slopes": {"held_out": {f"m{i}": 1.0 for i in range(16)}}}], {}, "m15"),
        ([{"epoch": e, "contributions": {"a": 1e300, "b": -1e300}} for e in (1, 2)], {"window": 9}, "window is shaded"),
        ([{"epoch": e, "contributions": {f"m{i}": i / e for i in range(40)}} for e in range(1, 61)], {}, "m39"),
    ],
)
def test_unusual_histories(tmp_path, history, arguments, said):
    page = read(report(history, tmp_path / "page.html", **arguments))
    assert said in page.text
    assert not re.search(r'="[^"]*\b(nan|inf)\b', (tmp_path / "page.html").read_text())


@pytest.mark.parametrize(
    ("history", "arguments", "error", "match"),
    [
        (3, {}, TypeError, "iterable"),
        ([3], {}, TypeError, "row of a history should be a mapping"),
        ([{"loss": 1.0}], {}, ValueError, "should have its epoch"),
        ([{"epoch": -1}], {}, ValueError, "`epoch` should be an integer"),
        ([{"epoch": 1}, {"epoch": 1}], {}, ValueError, "different epochs"),
        ([{"epoch": 1, "contributions": {"a": float("nan")}}], {}, ValueError, "finite"),
        ([{"epoch": 1, "contributions": [1]}], {}, TypeError, "mapping"),
        ([{"epoch": 1, "contributions": {"a": 1.0}, "intervals": {"b": (0, 1)}}], {}, ValueError, "exactly"),
        ([{"epoch": 1, "contributions": {"a": 1.0}, "intervals": {"a": 1}}], {}, TypeError, "pair"),
        ([{"epoch": 1, "groups": "ab"}], {}, TypeError, "mapping"),
        ([{"epoch": 1, "slopes": [1.0]}], {}, TypeError, "'held_out'"),
        ([{"epoch": 1, "slopes": {"held_out": {"a": float("nan")}}}], {}, ValueError, "finite"),
        ([{"epoch": 1, "slope_intervals": {"held_out": {"a": (0, 1)}}}], {}, ValueError, "exactly"),
        ([{"epoch": 1, "loss": "low"}], {}, TypeError, "`loss` should be a number"),
        ([], {"window": -1}, ValueError, "`window`"),
        ([], {"contributions": {"a": 1.0}}, TypeError, "should be Contributions"),
        ([], {"held_out": Measured({"a": 1.0})}, ValueError, "compared with training data"),
        ([], {"verdict": "balanced"}, TypeError, "`verdict` should be a Verdict"),
        ([], {"fisher": {"a": {"w": torch.tensor([float("inf")])}}}, ValueError, "Fisher diagonal should be finite"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(tmp_path, history, arguments, error, match):
    with pytest.raises(error, match=match):
        report(history, tmp_path / "page.html", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [(os, "fsync"), (Path, "replace"), (Path, "open")])
def test_where_the_disk_is_full_the_old_file_stays(tmp_path, monkeypatch, place):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = write_whole(tmp_path / "page.html", "old")
    with monkeypatch.context() as patch:
        patch.setattr(*place, full)
        with pytest.raises(OSError, match="No space"):
            write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_where_the_system_refuses_more_bytes_the_old_file_stays(tmp_path):
    resource = pytest.importorskip("resource", reason="no limits on file sizes here")
    assert resource
    program = """
        import importlib.util, resource, signal, sys
        spec = importlib.util.spec_from_file_location("files", sys.argv[1])
        files = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(files)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            files.write_whole(sys.argv[2], "new" * 10_000)
        except OSError:
            sys.exit(7)
    """
    file = write_whole(tmp_path / "page.html", "old")
    source = sys.modules[write_whole.__module__].__file__
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), source, str(file)], timeout=60)
    assert done.returncode == 7
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link_and_odd_characters_are_written(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    write_whole(tmp_path / "link.html", "\ud800 é")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "&#55296; é"


numbers = st.floats(-1e12, 1e12)


@given(st.lists(numbers, min_size=1), st.booleans())
@example([5e-324], False)
@example([0.0, 5e-324], False)
@example([-1e-291, 1e-300], True)
def test_an_axis_holds_all_values_and_few_round_ticks(values, whole):
    found = axis(values, 0, 100, whole=whole)
    assert found.low <= min(values)
    assert max(values) <= found.high
    assert found.low < found.high
    assert len(found.ticks) <= 7
    assert all(-1e-6 <= found.place(value) <= 100 + 1e-6 for value in values)
    assert all(-0.1 <= found.place(tick) <= 100.1 for tick in found.ticks)
    if whole:
        assert all(tick == int(tick) for tick in found.ticks)


@given(st.text("<>&'\"ab;#\n\u2028é", max_size=12))
def test_text_in_an_element_reads_back_as_it_was(text):
    page = Reader(element("p", text, title=text))
    assert page.elements == ["p"]
    assert page.text == text


def test_markup_is_not_escaped_twice():
    assert element("p", element("i", "<"), None, Markup("<br>")) == "<p><i>&lt;</i><br></p>"


def luminance(colour):
    """Of a colour #rrggbb; WCAG 2.2, relative luminance."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_from_their_background(scheme):
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for graphics (1.4.11)."""
    css = files("awc_balance.report").joinpath("page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))
    for ground in ("page", "card"):
        for name in colours.keys() - {"page", "card", "edge", "window"}:
            dark, light = sorted([luminance(colours[name]), luminance(colours[ground])])
            assert (light + 0.05) / (dark + 0.05) >= (3 if name.startswith("c") else 4.5), (name, ground)
