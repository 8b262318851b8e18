"""The table of experiments, as data, in the order in which they are run."""
import dataclasses

from dgl import kd

HEADLINE_KIMG, EXPLORATORY_KIMG = 100, 50
SEEDS = (0, 1, 2)
GROUPS = ("reference", "headline", "boost", "exploratory")


@dataclasses.dataclass(frozen=True)
class Run:
    """One row: a network that is made, trained (unless kimg is 0) and scored, once for every seed."""

    name: str
    group: str  # one of GROUPS
    title: str  # for people
    kimg: int  # training length in thousands of images; 0 scores a slice as prune_init.py makes it
    arguments: tuple[str, ...]  # of train.py, or of prune_init.py if kimg is 0; none is the teacher itself
    seeds: tuple[int, ...] = (0,)
    also_at: tuple[int, ...] = ()  # earlier lengths that are scored too


def _slice(score: str, width: str = "0.5", *more: str) -> tuple[str, ...]:
    return (f"--width={width}", f"--score={score}", "--no-refit", *more)


def _train(weight: str, start: str, width: str = "0.5", stage1: int = 0, *more: str) -> tuple[str, ...]:
    """Arguments of train.py; `start` is 'scratch' or the score of a slice."""
    begin = ("--init=scratch",) if start == "scratch" else ("--init=slice", f"--score={start}", "--no-refit")
    return (f"--width={width}", *begin, f"--dgl-weight={weight}", f"--stage1-kimg={stage1}", *more)


def _pair(start: str, width: str, group: str, kimg: int, label: str, **options: tuple[int, ...]) -> list[Run]:
    """The same run without and with the teacher's term."""
    share = {"0.5": "half", "0.25": "quarter", "1": "full"}[width]
    return [
        Run(f"{share}-{start}-lambda{weight}", group, f"{label}, λ {weight}", kimg, _train(weight, start, width),
            **options)
        for weight in ("0", "0.1")
    ]


def runs() -> list[Run]:
    """Every row. Headline rows first, then the boosted teacher, then what is only explored, by interest."""
    scored = {"seeds": SEEDS, "also_at": (EXPLORATORY_KIMG,)}
    short = EXPLORATORY_KIMG
    table = [
        Run("teacher", "reference", "teacher", 0, ()),
        *(Run(f"half-{score}-untrained", "reference", f"width 1/2, slice ({score}), untrained", 0, _slice(score))
          for score in ("l1", "first", "content", "diversity")),
        Run("half-l1-svs-untrained", "reference", "width 1/2, slice (l1) refined by SVS, untrained", 0,
            _slice("l1", "0.5", "--refine=svs")),
        *_pair("l1", "0.5", "headline", HEADLINE_KIMG, "width 1/2, slice (l1)", **scored),
        *_pair("scratch", "0.5", "headline", HEADLINE_KIMG, "width 1/2, scratch", **scored),
        Run("full-continued", "boost", "width 1, teacher continued", HEADLINE_KIMG, _train("0", "l1", "1"), **scored),
        Run("full-boosted", "boost", "width 1, boosted, λ 0.1", HEADLINE_KIMG, _train("0.1", "l1", "1"), **scored),
    ]
    for weight in ("0.03", "0.3", "1"):
        table.append(Run(f"half-l1-lambda{weight}", "exploratory", f"width 1/2, slice (l1), λ {weight}", short,
                         _train(weight, "l1")))
    for start, label in (("scratch", "scratch"), ("l1", "slice (l1)")):
        table.append(Run(f"half-{start}-two-stages", "exploratory", f"width 1/2, {label}, λ 0.1, two stages", short,
                         _train("0.1", start, "0.5", short // 2)))
    table.append(Run("half-l1-updated", "exploratory", "width 1/2, slice (l1), λ 0.1, teacher updated", short,
                     _train("0.1", "l1", "0.5", 0, "--teacher-update")))
    table.append(Run("half-l1-thin-d", "exploratory", "width 1/2, slice (l1), λ 0.1, student's D at width 1/2", short,
                     _train("0.1", "l1", "0.5", 0, "--d-width=0.5")))
    for weight in ("0", "0.1", "1"):  # of a discriminator that starts as the teacher's, the teacher can say little new
        table.append(Run(f"half-l1-fresh-d-lambda{weight}", "exploratory",
                         f"width 1/2, slice (l1), λ {weight}, student's D from scratch", short,
                         _train(weight, "l1", "0.5", 0, "--d-init=scratch")))
    for term in kd.TERMS:
        table.append(Run(f"half-l1-kd-{term}", "exploratory", f"width 1/2, slice (l1), λ 0.1, distillation ({term})",
                         short, _train("0.1", "l1", "0.5", 0, f"--kd={term}"),
                         seeds=SEEDS if term == "feature" else SEEDS[:1]))  # the best by one seed
    for weight in ("0", "0.1"):  # what helped the slice by l1, on a better one, without and with the teacher's verdict
        table.append(Run(f"half-diversity-kd-feature-lambda{weight}", "exploratory",
                         f"width 1/2, slice (diversity), λ {weight}, distillation (feature)", short,
                         _train(weight, "diversity", "0.5", 0, "--kd=feature"), seeds=SEEDS))
    for width, share in (("0.5", "1/2"), ("0.25", "1/4")):
        starts = ("first", "content", "diversity") if width == "0.5" else ("l1", "scratch", "first", "content",
                                                                         "diversity")
        for start in starts:
            label = "scratch" if start == "scratch" else f"slice ({start})"
            # One seed hinted that the teacher helps the smallest student from the best slice: more of that slice tell.
            seeds = SEEDS if start == "diversity" else SEEDS[:1]
            table += _pair(start, width, "exploratory", short, f"width {share}, {label}", seeds=seeds)
    for start, label in (("scratch", "scratch"), ("l1", "slice (l1)")):
        table.append(Run(f"quarter-{start}-two-stages", "exploratory", f"width 1/4, {label}, λ 0.1, two stages", short,
                         _train("0.1", start, "0.25", short // 2)))
    for start in ("first", "content", "diversity"):
        for width, share in (("0.5", "half"), ("0.25", "quarter")):
            table.append(Run(f"{share}-{start}-two-stages", "exploratory",
                             f"width {'1/2' if width == '0.5' else '1/4'}, slice ({start}), λ 0.1, two stages", short,
                             _train("0.1", start, width, short // 2)))
    return table


def shortened(run: Run, kimg: int) -> Run:
    """The same row at another training length, for a trial; a first stage stays half of a run that has two."""
    if run.kimg == 0:
        return run
    arguments = tuple(
        f"--stage1-kimg={kimg // 2}" if a.startswith("--stage1-kimg=") and not a.endswith("=0") else a
        for a in run.arguments
    )
    return dataclasses.replace(run, kimg=kimg, arguments=arguments, also_at=())
