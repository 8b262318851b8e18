"""The study of recipes as data: which recipes, at which cuts, by which budgets, with how many seeds."""
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .jobs import Job

BUDGETS = {"images": "equal images", "time": "equal processor time"}
CUTS = {"half": ("0.5", "Width 1/2"), "narrow": ("0.3", "30 % of the channels")}  # name → width, heading
ELASTIC = ("3/4", "1/2", "1/4")
BATCH = 16  # of games, as of distillation: as many steps for as many images
EMA_SHARE = 0.05  # of the length: half-life of the moving average of games; the preset's is for far longer ones
OURS = "ours"
SLOW = ("--glr=0.0002", "--dlr=0.0002")  # a tenth of the preset's learning rates
GAME_SHARE = 0.2  # of the length of ours with a game: that game
MOST = 4  # times the images: the longest training within a budget of time


@dataclasses.dataclass(frozen=True)
class Row:
    """One recipe of the study.

    Attributes:
        name: short, for files.
        title: for people.
        options: of train.py, besides width, length and data.
        data: images of the game: none, teacher or train.
        game_share: part of the length that is a game after distillation.
        distils: its learning rates follow its length, so that every length is a training of its own.
        is_claimed: its results are claimed, so that it has more seeds.
    """

    name: str
    title: str
    options: tuple[str, ...]
    data: str = "train"
    game_share: float = 0
    distils: bool = False
    is_claimed: bool = False

    def arguments(self, width: str, kimg: int) -> tuple[str, ...]:
        """What train.py is given."""
        game = max(1, round(self.game_share * kimg)) if self.game_share else 0
        lengths = [f"--kimg={kimg - game}", *([f"--game-kimg={game}"] if game else [])]
        batch = [] if self.distils else [f"--batch={BATCH}"]
        average = [f"--ema-kimg={EMA_SHARE * kimg:g}"] if game or not self.distils else []
        return (f"--width={width}", *self.options, *lengths, *batch, *average)


ROWS = (
    Row(OURS, "ours: refit and distillation, no data", ("--recipe=distil",), "none", distils=True, is_claimed=True),
    Row("ours-game", "ours, then a short game", ("--recipe=distil", *SLOW), game_share=GAME_SHARE, distils=True),
    Row("dgl", "DGL, from a slice (l1)", ("--recipe=paper",), is_claimed=True),
    Row("dgl-scratch", "DGL as published, from random weights", ("--recipe=paper", "--init=scratch")),
    Row("dgl-svs", "DGL, from a slice (l1) with SVS", ("--recipe=paper", "--refine=svs")),
    Row("cagc", "CAGC", ("--recipe=cagc",), is_claimed=True),
    Row("cagc-svs", "CAGC with SVS", ("--recipe=cagc", "--refine=svs")),
    Row("stylekd", "StyleKD, from random weights", ("--recipe=stylekd",), is_claimed=True),
    Row("stylekd-slice", "StyleKD, from a slice (l1)", ("--recipe=stylekd", "--init=slice")),
    Row("dcp", "DCP", ("--recipe=dcp",), is_claimed=True),
    Row("svs", "DCP with SVS", ("--recipe=svs",)),
    Row("slimming", "GAN Slimming", ("--recipe=slimming",)),
    Row("slimming-svs", "GAN Slimming with SVS", ("--recipe=slimming", "--refine=svs")),
    Row("nickel", "NICKEL-like", ("--recipe=nickel",)),
    Row("mobile", "MobileStyleGAN-like", ("--recipe=mobile",), "teacher"),
    Row("dgl-slow", "DGL, from a slice (l1), a tenth of the rates", ("--recipe=paper", *SLOW)),
    Row("cagc-slow", "CAGC, a tenth of the rates", ("--recipe=cagc", *SLOW)),
    Row("dcp-slow", "DCP, a tenth of the rates", ("--recipe=dcp", *SLOW)),
)


@dataclasses.dataclass(frozen=True)
class Study:
    """The size of a study.

    Attributes:
        kimg: length of every training by images.
        claimed, others: seeds of the rows that are claimed, and of the rest.
    """

    kimg: int
    claimed: int = 5
    others: int = 2

    def num_seeds(self, row: Row) -> int:
        """Seeds of a row."""
        return self.claimed if row.is_claimed else min(self.others, self.claimed)

    def by_images(self, cut: str, seed: int) -> list[Job]:
        """The trainings of one cut and seed with equal images."""
        return [self._job(cut, row, "images", seed, self.kimg) for row in self._rows(seed)]

    def by_time(self, cut: str, seed: int, lengths: Mapping[str, int]) -> list[Job]:
        """Those with equal processor time, as far as their lengths (row → kimg) are known."""
        return [self._job(cut, row, "time", seed, lengths[row.name]) for row in self._rows(seed) if row.name in lengths]

    def _rows(self, seed: int) -> list[Row]:
        return [row for row in ROWS if seed < self.num_seeds(row)]

    def _job(self, cut: str, row: Row, budget: str, seed: int, kimg: int) -> Job:
        width, _ = CUTS[cut]
        started = kimg if row.distils else self.kimg  # a game that is longer begins as the shorter one
        return Job(f"{cut}-{row.name}-{budget}", f"{cut}-{budget}", row.title, seed, kimg,
                   row.arguments(width, started), row.data, stretches=not row.distils,
                   run=f"{cut}-{row.name}" + (f"-{kimg}" if row.distils else ""))

    def elastic(self, seed: int) -> list[Job]:
        """One elastic student, cut at every width, and students that were distilled at one width each."""
        if seed >= self.claimed:
            return []
        ours = ROWS[0]
        options = ("--width=1", *ours.options, f"--elastic={','.join(ELASTIC)}", f"--kimg={self.kimg}")
        order = []
        for width in ELASTIC:
            name = width.replace("/", "of")
            run = f"half-{OURS}-{self.kimg}" if width == "1/2" else f"separate-{name}-{self.kimg}"
            text = "0.5" if width == "1/2" else width
            order.append(Job(f"separate-{name}", "elastic", f"width {width}, distilled alone", seed, self.kimg,
                             ours.arguments(text, self.kimg), run=run))
            order.append(Job(f"elastic-{name}", "elastic", f"width {width}, cut out of the elastic student", seed,
                             self.kimg, options, run=f"elastic-{self.kimg}", cut=width))
        return order

    @property
    def teacher(self) -> Job:
        """The teacher, scored."""
        return Job("teacher", "reference", "teacher", 0, 0, ())


def length_within(seconds: float, used: Sequence[tuple[float, float]], kimg: int) -> int:
    """The length in kimg, at least 1, that a training comes to within that many processor seconds.

    Args:
        seconds: the budget.
        used: (kimg, processor seconds) at the ends of its ticks, the first of which has what precedes the training.
        kimg: its length; longer ones are extrapolated by the mean speed, up to MOST times as long.
    """
    within = [at for at, sec in used if sec <= seconds]
    last_kimg, last_sec = used[-1]
    if last_sec <= seconds:
        speed = (last_sec - used[0][1]) / max(last_kimg - used[0][0], 1e-9)
        return min(int(last_kimg + (seconds - last_sec) / max(speed, 1e-9)), MOST * kimg)
    return max(1, int(max(within, default=0)))


def pairs() -> list[tuple[str, str]]:
    """(A, B): names whose difference B - A the document shows: ours against every other, elastic against separate."""
    rivals = [(f"{cut}-{row.name}-{budget}", f"{cut}-{OURS}-{budget}")
              for cut in CUTS for budget in BUDGETS for row in ROWS if row.name != OURS]
    names = [width.replace("/", "of") for width in ELASTIC]
    return [*rivals, *((f"separate-{name}", f"elastic-{name}") for name in names)]


def groups() -> dict[str, str]:
    """Group → heading, in the order of the document."""
    by_cut = {f"{cut}-{budget}": f"{heading}, {text}"
              for cut, (_, heading) in CUTS.items() for budget, text in BUDGETS.items()}
    return {"reference": "Teacher", **by_cut, "elastic": "The elastic student"}


def order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of results in the order of the document, whatever the order of work was."""
    rank = {group: i for i, group in enumerate(groups())}
    names = {row.name: i for i, row in enumerate(ROWS)}

    def key(row: dict[str, Any]) -> tuple[int, int, str, int]:
        middle = row["name"].partition("-")[2].rpartition("-")[0]
        at = names.get(middle, 0) if row["group"] != "elastic" else 0
        return rank.get(row["group"], len(rank)), at, _width_first(row["name"]), row["seed"]

    return sorted(rows, key=key)


def _width_first(name: str) -> str:
    """Names of the elastic table by width, widest first; others all alike."""
    kind, _, width = name.partition("-")
    return f"{[w.replace('/', 'of') for w in ELASTIC].index(width)}{kind}" if kind in ("elastic", "separate") else ""
