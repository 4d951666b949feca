"""What results/report.html shows beside samples, times and provenance: figures and tables, by chapters of a story.

Figures and tables of the evaluations name their chapter in FIGURES and TABLES; what other rules make stands here.
Snakemake reads this file too, so it imports next to nothing.
"""

from typing import NamedTuple

from blurdiff.reporting.figures import FIGURES
from blurdiff.reporting.summaries import TABLES, made


class Chapter(NamedTuple):
    """A part of the page."""

    title: str
    text: str  # what a stranger must know to read it


class Exhibit(NamedTuple):
    """A picture, a table or both, with what is said of it. Files are named as in the folder of results."""

    title: str
    chapter: str  # a key of CHAPTERS
    picture: str | None = None
    caption: str | None = None  # a file of Markdown
    table: str | None = None  # Markdown, with a table and what it says itself
    text: str = ""  # a caption that no file has

    @property
    def files(self) -> list[str]:
        """All that it is made from."""
        return [name for name in (self.picture, self.caption, self.table) if name]


CHAPTERS = {
    "table1": Chapter("How far from the data", "Table 1 of the paper, with the numbers of this run."),
    "breaks": Chapter(
        "What breaks, and what mends it",
        "The same networks, drawn from by several samplers; each line of the picture is a run. Where images are black,"
        " white or of one colour, the run is broken; where the same schedule works with another prediction, that mends"
        " it.",
    ),
    "pairs": Chapter(
        "Against no blur, in pairs",
        "Every run minus the same run without blur, seed by seed: the fair comparison.",
    ),
    "tilt": Chapter(
        "Is coarse to fine better?",
        "The spectral tilt p says in which order frequencies go under in noise: at 0, as in DDPM, fine detail first; at"
        " 1 all alike; above it the coarse first.",
    ),
    "reverse": Chapter("From noise to image", "How an image appears, and how it was taken apart before."),
    "samples": Chapter("Samples", "The first images of every run, none selected."),
    "metrics": Chapter("More than one number", "Other metrics of the same samples, from the same features."),
    "samplers": Chapter("Fewer steps", "The same networks with other samplers, in fewer steps."),
    "inside": Chapter("Behind the numbers", "Blur schedules, training, and at which scale detail is missing."),
    "audit": Chapter(
        "The paper and its released code",
        "Where the two differ, measured from formulas alone at the paper's scale; no network of this run is involved."
        " docs/audit.md explains it, audit/measurements.csv has all numbers.",
    ),
}  # fmt: skip
AUDIT = (
    Exhibit("Differences, and what each does", "audit", table="audit/differences.md"),
    Exhibit(
        "The paper's blur and the operator of the released code", "audit", "audit/operator.png",
        text="Top: a test image drawn by a program; the whole blur of the quartic schedule; the released operator of"
        " the same power; three times their difference on grey. Middle: D of every mode, coarse modes at the upper"
        " left. Bottom: D of the modes, sorted from coarse to fine.",
    ),
    Exhibit(
        "Samplers on Gaussian data with the exact score", "audit", "audit/gaussian.png",
        text="The final standard deviation of a mode over the true one, against spatial frequency; 1 is right. A column"
        " a process, a row a grid of timesteps, a line a sampler. Rows, and the columns of"
        " log, have scales of their own.",
    ),
)  # fmt: skip


def exhibits(config: dict) -> list[Exhibit]:
    """All that a complete config has made, pictures before tables within a chapter, in the order of the page."""
    figures = [
        Exhibit(
            FIGURES[name].title,
            FIGURES[name].chapter,
            f"figures/{name}.{FIGURES[name].formats[0]}",
            f"figures/{name}.md",
        )
        for name in FIGURES
        if config["figures"].get(name)
    ]
    tables = []
    for name in made(config):
        table = TABLES[name]
        picture, caption = (f"figures/{name}.png", f"figures/{name}.md") if table.figure else (None, None)
        tables.append(Exhibit(table.title, table.chapter, picture, caption, f"{name}.md"))
    order = list(CHAPTERS)
    shown = sorted([*tables, *figures], key=lambda one: (order.index(one.chapter), one.picture is None))
    return [*shown, *AUDIT]
