"""results/report.html: what is on it, the same bytes each time, with what is there, and nothing where a file is bad."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from fabricated import ODD_LABEL, STUDY
from markupsafe import Markup
from PIL import Image

from blurdiff.cli import main
from blurdiff.reporting import labels, markup, timings
from blurdiff.reporting.exhibits import CHAPTERS
from blurdiff.reporting.figures import FIGURES
from blurdiff.reporting.summaries import TABLES
from blurdiff.runtime import arrays


class Page(HTMLParser):
    """What a browser would show of a page: its text, ids, and what it would load."""

    def __init__(self, path):
        super().__init__()
        self.raw = path.read_text(encoding="utf-8")
        self.ids, self.sources, self.tags, self.parts, self.hidden = set(), [], [], [], 0
        self.feed(self.raw)
        self.text = " ".join("".join(self.parts).split())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.hidden += tag in ("style", "script")
        self.tags.append(tag)
        self.parts.append(" ")
        self.ids |= {given["id"]} if "id" in given else set()
        self.sources += [given[key] for key in ("src", "href") if key in given and tag != "a"]

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data):
        self.parts += [] if self.hidden else [data]


@pytest.fixture
def page(tmp_path):
    def make(config):
        assert main(["page", "--config", str(config)]) == 0
        return Page(tmp_path / "results" / "report.html")

    return make


def test_all_results_are_on_it(results, page, tmp_path):
    runs = ["rooms_none", "rooms_quartic"]
    figures = dict.fromkeys(("figure1", "animation", "metrics", "training"), runs)
    config = results(seeds=[0, 1], sampler_study=STUDY, figures=figures)
    made = page(config)
    assert {
        "table1",
        "breaks",
        "pairs",
        "time",
        "reverse",
        "metrics",
        "samplers",
        "inside",
        "audit",
        "provenance",
    } <= made.ids
    assert made.tags.count("img") == 5 + 8  # two data sets, three runs; four figures, two of studies, two of the audit
    assert all(source.startswith("data:") for source in made.sources)
    assert "Not there yet" not in made.text
    assert f"{ODD_LABEL} (synthetic)" in made.text and "<b> &" not in made.raw.replace("&lt;b&gt; &amp;", "")
    # Seeds 0 and 1 of rooms_none have 100 and 102, of rooms_quartic 104 and 106.
    assert "no blur 101.00 ± 1.41 rooms_none" in made.text
    assert "quartic, f(N) = 0.14 105.00 ± 1.41 +4.00 [+4.00, +4.00] against no blur" in made.text
    assert "50% black, white or one colour rooms_quartic" in made.text
    assert "Caption of figures/figure1.md: <i>." in made.text
    moving = [base64.b64decode(source.split(",", 1)[1]) for source in made.sources if "image/webp" in source]
    assert sum(Image.open(io.BytesIO(each)).n_frames == 2 for each in moving) == 1  # the animation is as it was
    # Six jobs of two hours, and six trainings of 300 s by their histories, which have no file of Snakemake's.
    assert "All jobs together took 12.0 h" in made.text
    assert page(config).raw == made.raw


@pytest.mark.parametrize("without", ["study", "synthetic data", "files"])
def test_what_is_not_there_is_left_out(without, results, page, tmp_path):
    photos = {"datasets": {"photos": {"lmdb": "photos_lmdb"}}, "runs": [{"dataset": "photos"}]}
    changes = {"study": {}, "synthetic data": photos, "files": {"figures": {"figure4": ["rooms_none"]}}}[without]
    config = results(**changes)
    if without == "files":
        for path in ("benchmarks", "figures", "audit"):
            (tmp_path / "results" / path).rename(tmp_path / path)
        for path in ("table1.csv", "differences.md", "runs/rooms_none/seed0/samples.npz", "data/photos/manifest.json"):
            (tmp_path / "results" / path).unlink()
    made = page(config)
    assert not {"breaks", "samplers"} & made.ids and "metrics" in made.ids
    if without == "files":
        assert "Not there yet: differences, figures/figure4, audit/differences" in made.text
        assert "runs/rooms_none/seed0/samples. snakemake" in made.text
        assert not {"time", "inside", "audit"} & made.ids
    else:
        assert "Not there yet" not in made.text
    assert "white or one colour" not in made.text  # failures.csv is of a study that the config has no more
    if without == "synthetic data":
        assert "no photographs" not in made.text and "With one seed" in made.text


def test_what_another_config_made_is_named_and_not_shown(results, page, tmp_path):
    config = results(seeds=[0, 1])
    changed = yaml.safe_load(config.read_text())
    changed["training"]["iterations"] = 4000
    changed["datasets"]["photos"] = {"folder": "own", "label": "my photos"}
    config.write_text(yaml.safe_dump(changed))
    runs = tmp_path / "results" / "runs"
    (runs / "rooms_none" / "seed1" / "samples.npz").unlink()
    path = runs / "rooms_quartic" / "seed1" / "samples.npz"
    made_with = json.dumps({"training.iterations": 3000})
    arrays.write_npz(path, {"arr_0": np.load(path)["arr_0"], "made_with": made_with})
    made = page(config)
    assert "Made with another config, as are the tables and figures of it: " in made.text
    assert "data/photos/manifest.json was made with source photos_lmdb, the settings have own" in made.text
    assert "rooms_quartic/seed1/samples.npz was made with training.iterations 3000, the settings have 4000" in made.text
    assert "5 of 6 networks have learned" in made.text and "Not there yet: runs/rooms_none/seed1/samples" in made.text
    # The drawn data and three runs (the files of others do not say what made them), and two pictures of the audit.
    assert made.tags.count("img") == 4 + 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("figures/figure4.png", b"\x89PNG\r\n\x1a\n cut off"),
        ("table1.csv", b"run,mean\nrooms_none,1"),
        ("benchmarks/sample/rooms_none.seed0.0.tsv", b"seconds\n1\n"),
        ("runs/rooms_none/seed0/samples.npz", b"PK"),
    ],
)
def test_a_damaged_file_is_named_and_the_page_stays(name, content, results, tmp_path, capsys):
    config = results(figures={"figure4": ["rooms_quartic"]})
    (tmp_path / "results" / "report.html").write_text("the page before")
    (tmp_path / "results" / name).write_bytes(content)
    assert main(["page", "--config", str(config)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / "results" / name) in error
    assert (tmp_path / "results" / "report.html").read_text() == "the page before"


@pytest.mark.parametrize("text", [ODD_LABEL, r"a\ **b** _c_ ~d~ [e](f) {g} #h", "plain, f(N) = 0.14"])
def test_markdown_of_a_label_is_the_label(text):
    assert markup.inline(labels.markdown(text)).unescape() == text
    [table] = markup.blocks(f"| {labels.markdown(text)} | n |\n|---|---:|\n| **{labels.markdown(text)}** | 1 |\n")
    assert table.heads[0].unescape() == text and table.numeric == [False, True]
    assert table.rows[0][0].striptags() == Markup.escape(text).striptags() or "<b>" in text


def test_a_list_is_a_paragraph_for_each_line_and_details_are_left_out():
    assert markup.blocks("# Title\n\n- a\n- *b* `c<`\n\n## Details\n\nnone") == ["a", "<i>b</i> <code>c&lt;</code>"]


def test_the_tilt_is_shown_where_runs_have_one(results, page):
    config = results(runs=[{"dataset": "rooms", "f_type": "none", "snr_tilt": tilt} for tilt in (0, 1)])
    assert "tilt" in page(config).ids


def test_jobs_of_other_configs_do_not_count(tmp_path):
    for job in ("train/a.seed0", "train/a.seed01", "sample/a.seed0.12", "preprocess/d/3", "preprocess/old"):
        path = tmp_path / f"{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("s\th:m:s\tmax_rss\tcpu_time\n1.5\t0:00:01\tNA\t-\n")
    found = timings.of_config(timings.read_timings(tmp_path), {"d": {}}, ["a.seed0"])
    jobs = [["preprocess", "d/3"], ["sample", "a.seed0.12"], ["train", "a.seed0"]]
    assert found[["rule", "job"]].values.tolist() == jobs
    assert found["seconds"].tolist() == [1.5] * 3 and found[["cpu_seconds", "max_rss_mb"]].isna().all(axis=None)


def test_every_figure_and_table_has_its_chapter():
    assert {each.chapter for each in (*FIGURES.values(), *TABLES.values())} <= CHAPTERS.keys()
