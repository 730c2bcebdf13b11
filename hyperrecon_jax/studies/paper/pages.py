"""The report as one HTML file with its pictures in it, and as a PDF with the same content."""

import base64
import html
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from hyperrecon_jax.figures import style
from hyperrecon_jax.runtime import files
from hyperrecon_jax.studies.paper.claims import FAILS, HOLDS, UNTESTED, Verdict
from hyperrecon_jax.studies.paper.content import Report, Section, Table

MARKS = {HOLDS: ("✓", "#1a7f37"), FAILS: ("✗", "#b42318"), UNTESTED: ("–", "#6b7280")}
STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.9rem; margin: 0 0 .5rem }
h2 { margin: 2.5rem 0 .5rem; border-top: 1px solid #d0d7de; padding-top: 1.5rem }
table { border-collapse: collapse; margin: .75rem 0; font-size: .875rem; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #e4e8ec }
th { border-bottom: 2px solid #d0d7de } .about th { white-space: nowrap; border-bottom: 1px solid #e4e8ec; width: 9rem }
.mark { white-space: nowrap; font-weight: 600 } .why, figcaption, .note { color: #57606a; font-size: .875rem }
.paper { background: #f6f8fa; border-left: 4px solid #8c959f; padding: .6rem 1rem; margin: .75rem 0 }
figure { margin: 1rem 0 }
img { max-width: 100%; max-height: 60rem; object-fit: contain; object-position: left; display: block }
pre { background: #f6f8fa; padding: .75rem; font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
a { color: #0a58ca } .missing { color: #6b7280; font-style: italic } .scroll { overflow-x: auto }
@media print { body { max-width: none; margin: 0; font-size: 11pt } figure, tr { break-inside: avoid } }
"""
A4 = (8.27, 11.69)  # inches
LINE = 0.19  # inches, of 9 pt
LETTERS = 108  # of 9 pt in a line of a page


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write `index.html` and `report.pdf`, each whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, pdf = folder / "index.html", folder / "report.pdf"
    with files.atomic_write(page) as partial:
        partial.write_text(as_html(report), encoding="utf-8")
    with files.atomic_write(pdf) as partial:
        _write_pdf(report, partial)
    return page, pdf


def as_html(report: Report) -> str:
    """The whole page."""
    e = html.escape
    about = "".join(f"<tr><th>{e(name)}</th><td>{e(value)}</td></tr>" for name, value in report.about)
    rows = "".join(
        f'<tr><td><a href="#{v.figure}">{e(v.claim)}</a> <span class="why">({e(v.section)})</span></td>'
        f"<td>{_mark(v)}</td><td>{e(v.number)}</td></tr>"
        for v in report.verdicts
    )
    notes = "".join(f"<li>{e(note)}</li>" for note in report.notes)
    contents = " · ".join(f'<a href="#{s.key}">{e(s.title)}</a>' for s in report.sections)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{e(report.title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>{e(report.title)}</h1><p>{e(report.introduction)}</p><table class="about">{about}</table>'
        f"<h2>What holds: {e(tally(report))}</h2><p>Every verdict is computed from the numbers of the runs, by a criterion"
        f" that stands with the figure it links to. {contents} · <a href='#differs'>What differs from the paper</a></p>"
        f'<div class="scroll"><table><tr><th>Claim</th><th>Verdict</th><th>Number</th></tr>{rows}</table></div>'
        f"{''.join(_section(report, section) for section in report.sections)}"
        f'<h2 id="differs">What differs from the paper</h2><ul>{notes}</ul></body></html>\n'
    )


def tally(report: Report) -> str:
    """How many claims there are of each verdict."""
    told = [verdict.verdict for verdict in report.verdicts]
    return ", ".join(f"{told.count(kind)} {'hold' if kind == HOLDS else kind.replace('does', 'do')}" for kind in MARKS)


def _mark(verdict: Verdict) -> str:
    sign, color = MARKS[verdict.verdict]
    return f'<span class="mark" style="color:{color}">{sign} {html.escape(verdict.verdict)}</span>'


def _sentence(verdict: Verdict) -> str:
    """What it rests on, as a sentence."""
    return f"{verdict.number[:1].upper()}{verdict.number[1:]}." if verdict.number else ""


def _share(file: Path) -> float:
    """Of the page's width, for a picture: all for one of two columns of a paper, less for a narrower one."""
    with Image.open(file) as header:
        return min(1.0, header.width / (style.DOUBLE * style.PAPER["savefig.dpi"]))


def _section(report: Report, section: Section) -> str:
    e = html.escape
    parts = [
        f'<section id="{section.key}"><h2>{e(section.title)}</h2>'
        f'<div class="paper"><b>The paper.</b> {e(section.paper)}</div>'
    ]
    if not section.pictures and not section.tables:
        parts.append('<p class="missing">Its runs are not there yet.</p>')
    for file, caption in section.pictures:
        data = base64.b64encode(file.read_bytes()).decode()
        parts.append(
            f'<figure><img style="width:{_share(file):.0%}"'
            f' alt="{e(section.title)}: {e(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{e(caption)}</figcaption></figure>"
        )
    for head, rows, caption in section.tables:
        cells = "".join("<tr>" + "".join(f"<td>{e(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(
            f'<div class="scroll"><table><tr>{"".join(f"<th>{e(cell)}</th>" for cell in head)}</tr>{cells}</table></div>'
            f'<p class="note">{e(caption)}</p>'
        )
    for v in report.verdicts:
        if v.figure == section.key:
            parts.append(f'<p>{_mark(v)} {e(v.claim)}. {e(_sentence(v))} <span class="why">{e(v.why)}</span></p>')
    if section.commands:
        lines = e("\n".join(section.commands))
        parts.append(f"<details><summary>Commands that make its runs</summary><pre>{lines}</pre></details>")
    return "".join(parts) + "</section>"


def _write_pdf(report: Report, path: Path) -> None:
    with PdfPages(path, metadata={"Title": report.title}) as pdf:
        text = _Pages(pdf)
        text.write(report.title, size=16, bold=True)
        text.write(report.introduction)
        for name, value in report.about:
            text.write(f"{name}: {value}")
        text.write(f"What holds: {tally(report)}", size=12, bold=True)
        rows = tuple((f"{v.claim} ({v.section})", v.verdict, v.number) for v in report.verdicts)
        text.table(Table(("claim", "verdict", "number"), rows, ""), (0.48, 0.18, 0.34))
        text.end()
        for section in report.sections:
            text.write(section.title, size=14, bold=True)
            text.write(f"The paper: {section.paper}")
            if not section.pictures and not section.tables:
                text.write("Its runs are not there yet.", color="#6b7280")
            for file, caption in section.pictures:
                text.picture(file)
                text.write(caption, color="#57606a")
            for table in section.tables:
                text.table(table, (1 / len(table.head),) * len(table.head))
                text.write(table.caption, color="#57606a")
            for v in report.verdicts:
                if v.figure == section.key:
                    sign, color = MARKS[v.verdict]
                    text.write(f"{sign} {v.verdict}: {v.claim}", color=color)
                    text.write(f"{_sentence(v)} {v.why}".strip(), color="#57606a")
            text.end()
        text.write("What differs from the paper", size=14, bold=True)
        for note in report.notes:
            text.write(f"• {note}")
        text.write("Commands", size=14, bold=True)
        for line in dict.fromkeys(line for section in report.sections for line in section.commands):
            text.write(line, size=6.5)
        text.end()


class _Pages:
    """Pages of a PDF that are filled from above; what does not fit goes to the next."""

    def __init__(self, pdf: PdfPages):
        self.pdf, self.figure, self.y = pdf, Figure(figsize=A4), A4[1] - 0.8

    def end(self) -> None:
        """Finish the page, unless it is empty."""
        if self.figure.texts or self.figure.axes:
            self.pdf.savefig(self.figure)
        self.figure, self.y = Figure(figsize=A4), A4[1] - 0.8

    def room(self, height: float) -> None:
        if self.y - height < 0.7:
            self.end()

    def write(self, text: str, *, size: float = 9, bold: bool = False, color: str = "black") -> None:
        lines = textwrap.wrap(text, int(LETTERS * 9 / size * (0.88 if bold else 1)))
        height = LINE * size / 9
        self.room(height * (len(lines) + (3 if bold else 0)))  # no heading at the foot of a page
        weight = "bold" if bold else "normal"
        for line in lines:
            self.figure.text(
                0.09, self.y / A4[1], line, fontsize=size, weight=weight, color=color, va="top", parse_math=False
            )
            self.y -= height
        self.y -= 0.1

    def picture(self, file: Path) -> None:
        image = matplotlib.image.imread(file)
        shape = image.shape[0] / image.shape[1]
        width = min(6.8 * _share(file), 7.2 / shape)
        self.room(width * shape + 0.1)
        self.y -= width * shape
        axis = self.figure.add_axes((0.5 - width / A4[0] / 2, self.y / A4[1], width / A4[0], width * shape / A4[1]))
        axis.imshow(image, interpolation="antialiased", aspect="auto")
        axis.set_axis_off()
        self.y -= 0.1

    def table(self, table: Table, widths: Sequence[float]) -> None:
        """Rows with columns of such parts of the width; what is a verdict has its colour."""
        for i, row in enumerate((table.head, *table.rows)):
            cells = [textwrap.wrap(cell, int(108 * width)) or [""] for cell, width in zip(row, widths, strict=True)]
            height = 0.14 * max(map(len, cells)) + 0.07
            self.room(height)
            for j, (cell, text) in enumerate(zip(cells, row, strict=True)):
                self.figure.text(
                    0.09 + 0.82 * sum(widths[:j]),
                    self.y / A4[1],
                    "\n".join(cell),
                    fontsize=7,
                    weight="bold" if i == 0 else "normal",
                    color=MARKS.get(text, ("", "black"))[1],
                    va="top",
                    parse_math=False,
                )
            self.y -= height
        self.y -= 0.1
