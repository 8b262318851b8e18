"""The table of experiments with distillation, as data, in the order in which they are run."""
from .jobs import Job

GROUPS = ("reference", "untrained", "length", "quarter", "start", "game", "guidance", "few")
LENGTHS = (5, 10, 25, 50)
CLAIMED, HINTED = 5, 2  # seeds of what is claimed, and of the rest
SCORES = ("l1", "content", "diversity", "reconstruct")
SHARES = {"0.5": "half", "0.25": "quarter"}  # name of a width in the names of runs
FRACTIONS = {"0.5": "1/2", "0.25": "1/4"}  # and in titles
GAME_KIMG, LONG_GAME_KIMG = 10, 25
DISTIL_KIMG = 25  # before a game, and from different starts
RATE = ("--glr=0.0025", "--dlr=0.0025")
GUIDED_BASE = "half-game-train-0.0025"  # what other forms of guidance are compared with
LABELS = {"train": "60,000 real images", "teacher": "the teacher's images"}  # images of a game → in titles
WARMUP_KIMG = 5  # of the discriminator alone
FEW = (50, 100, 200, 2000)  # real images


def _cut(width: str, score: str, refit: bool) -> tuple[str, ...]:
    return (f"--width={width}", f"--score={score}", "--refit" if refit else "--no-refit")


def _distilled(width: str, kimg: int, group: str, seed: int) -> Job:
    return Job(f"{SHARES[width]}-distil{kimg}", group, f"width {FRACTIONS[width]}, refitted, {kimg} kimg",
               seed, kimg, (*_cut(width, "reconstruct", True), f"--kimg={kimg}"))


def _starts(width: str, group: str, seed: int, kimg: int = DISTIL_KIMG) -> list[Job]:
    """Distillation from every slice but the refitted one of `reconstruct`."""
    suffix = "" if kimg == DISTIL_KIMG else kimg
    return [Job(f"{SHARES[width]}-{score}-{'refitted' if refit else 'plain'}-distil{suffix}", group,
                f"width {FRACTIONS[width]}, {score}{', refitted' if refit else ''}, {kimg} kimg", seed, kimg,
                (*_cut(width, score, refit), f"--kimg={kimg}"), all_detectors=seed == 0)
            for score in SCORES for refit in (True, False) if (score, refit) != ("reconstruct", True)]


def _games(seed: int) -> list[Job]:
    """A game after distillation: with real images or the teacher's own, at the default or at low rates, and longer."""
    titles = {"0.0025": "default rates", "0.00025": "rates / 10"}
    ways = [(data, rate, GAME_KIMG) for data in LABELS for rate in titles]
    ways += [(data, "0.0025", LONG_GAME_KIMG) for data in LABELS]
    order = [Job(f"half-game{'' if kimg == GAME_KIMG else kimg}-{data}-{rate}", "game",
                 f"then a game of {kimg} kimg, {LABELS[data]}, {titles[rate]}", seed, DISTIL_KIMG + kimg,
                 (*_cut("0.5", "reconstruct", True), f"--kimg={DISTIL_KIMG}", f"--game-kimg={kimg}", f"--glr={rate}",
                  f"--dlr={rate}"), data) for data, rate, kimg in ways]
    quarter = [Job(f"quarter-game{'' if kimg == GAME_KIMG else kimg}-{data}-0.0025", "quarter",
                   f"width 1/4, {DISTIL_KIMG} kimg, then a game of {kimg} kimg, {LABELS[data]}, default rates", seed,
                   DISTIL_KIMG + kimg, (*_cut("0.25", "reconstruct", True), f"--kimg={DISTIL_KIMG}",
                                        f"--game-kimg={kimg}", *RATE), data)
               for kimg in (GAME_KIMG, LONG_GAME_KIMG) for data in LABELS]
    return [*order, *quarter]


def _lengths_before_game(seed: int) -> list[Job]:
    """The game of GUIDED_BASE from the refitted slice, and after other lengths of distillation; of further seeds that
    after the longest alone, which the advice rests on.
    """
    alone = ("--recipe=paper", f"--kimg={GAME_KIMG}", f"--ema-kimg={GAME_KIMG / 20:g}", "--dgl-weight=0.1")
    title = f"a game of {GAME_KIMG} kimg, 60,000 real images, default rates"
    ways = [(f"half-alone{suffix}", f"no distillation, {title}{words}", GAME_KIMG, (*alone, *options))
            for suffix, words, options in (("", "", ()), ("-feature", ", --kd=feature", ("--kd=feature",)))]
    ways += [(f"half-game-after{kimg}", f"after {kimg} kimg, {title}", kimg + GAME_KIMG,
              (f"--kimg={kimg}", f"--game-kimg={GAME_KIMG}", *RATE)) for kimg in LENGTHS if kimg != DISTIL_KIMG]
    return [Job(name, "game", title, seed, kimg, (*_cut("0.5", "reconstruct", True), *options), "train")
            for name, title, kimg, options in (ways if seed == 0 else ways[-1:])]


def _beginnings_of_game(seed: int) -> list[Job]:
    """The game of GUIDED_BASE after WARMUP_KIMG in which D alone is trained, and without the distillation terms."""
    cut = (*_cut("0.5", "reconstruct", True), f"--kimg={DISTIL_KIMG}", *RATE)
    ways = (("warm", f"D alone for {WARMUP_KIMG} kimg before", WARMUP_KIMG, f"--game-warmup={WARMUP_KIMG}"),
            ("undistilled", "without the distillation terms", 0, "--game-kd=0"))
    return [Job(f"half-game-{data}-{name}", "game",
                f"then a game of {GAME_KIMG} kimg, {LABELS[data]}, default rates, {title}", seed,
                DISTIL_KIMG + GAME_KIMG + more, (*cut, f"--game-kimg={GAME_KIMG + more}", option), data)
            for name, title, more, option in ways for data in LABELS]


def _guided(seed: int) -> list[Job]:
    """The game of GUIDED_BASE with other forms and weights of the teacher's term."""
    cut = (*_cut("0.5", "reconstruct", True), f"--kimg={DISTIL_KIMG}", f"--game-kimg={GAME_KIMG}", *RATE)
    return [Job(f"half-{form}-lambda{weight}", "guidance", f"{form}, λ {weight}", seed, DISTIL_KIMG + GAME_KIMG,
                (*cut, f"--guidance={form}", f"--dgl-weight={weight}"), "train")
            for form in ("verdict", "relative", "ratio") for weight in ("0.1", "1")
            if (form, weight) != ("verdict", "0.1")]


def _few(number: int, seed: int) -> list[Job]:
    """Games with few real images, from the refitted slice and from a distilled student."""
    cut = (*_cut("0.5", "reconstruct", True), f"--subset={number}")
    alone = ("--recipe=paper", f"--kimg={GAME_KIMG}", f"--ema-kimg={GAME_KIMG / 20:g}")
    ways: dict[str, tuple[str, tuple[str, ...]]] = {
        "lambda0": ("game alone", ("--dgl-weight=0",)),
        "lambda0.1": ("verdict, λ 0.1", ("--dgl-weight=0.1",)),
        "lambda1": ("verdict, λ 1", ("--dgl-weight=1",)),
        "ada": ("verdict, λ 0.1, ADA", ("--dgl-weight=0.1", "--aug=ada")),
        "heads": ("heads, λ 0.1", ("--guidance=heads", "--dgl-weight=0.1")),
        "feature": ("verdict, λ 0.1, --kd=feature", ("--dgl-weight=0.1", "--kd=feature")),
    }
    order = [Job(f"few{number}-{name}", "few", f"{number} images, {title}", seed, GAME_KIMG, (*cut, *alone, *options),
                 "train", all_detectors=name in ("lambda0", "lambda0.1")) for name, (title, options) in ways.items()]
    lengths = (f"--kimg={DISTIL_KIMG}", f"--game-kimg={GAME_KIMG}")
    return [*order, Job(f"few{number}-distilled", "few", f"{number} images, distilled before",
                        seed, DISTIL_KIMG + GAME_KIMG, (*cut, *lengths, *RATE), "train")]


def jobs() -> list[Job]:
    """In the order of work: within a group every row of a seed before those of the next."""
    order = [Job("teacher", "reference", "teacher", 0, 0, ())]
    for width, share in SHARES.items():
        for score in SCORES:
            for refit in (False, True):
                order.append(Job(f"{share}-{score}-{'refitted' if refit else 'plain'}", "untrained",
                                 f"width {FRACTIONS[width]}, {score}{', refitted' if refit else ''}",
                                 0, 0, _cut(width, score, refit)))
    for seed in range(CLAIMED):
        lengths = LENGTHS if seed < HINTED else LENGTHS[-2:]
        order += [_distilled("0.5", kimg, "length", seed) for kimg in reversed(lengths)]
    order += [_distilled("0.25", LENGTHS[-1], "quarter", seed) for seed in range(CLAIMED)]
    order += [_distilled("0.25", kimg, "quarter", 0) for kimg in reversed(LENGTHS[:-1])]
    for seed in range(HINTED):
        order += _games(seed)
    for seed in range(HINTED):
        order += _lengths_before_game(seed)
    order += _beginnings_of_game(0)
    for seed in range(HINTED):
        order += _guided(seed)
    for seed in range(HINTED):
        for number in FEW:
            order += _few(number, seed)
    for seed in range(HINTED):
        order += _starts("0.5", "start", seed)
    for width, group in (("0.5", "start"), ("0.25", "quarter")):
        for kimg in LENGTHS:
            if (width, kimg) != ("0.5", DISTIL_KIMG):  # above, with two seeds
                order += _starts(width, group, 0, kimg)
    return order
