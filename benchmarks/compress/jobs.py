"""Networks that are made by train.py or prune_init.py and scored, one row of results per network and detector."""
import dataclasses
import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.files import append_line

from . import execution

SECOND_NUM_GEN = 5000  # generated images for every detector but the first, which are slow


@dataclasses.dataclass(frozen=True)
class Job:
    """One network that is made or trained, and scored."""

    name: str
    group: str  # its table in the report
    title: str  # for people
    seed: int
    kimg: int  # training length in thousands of images; 0 is a slice as prune_init.py makes it
    arguments: tuple[str, ...]  # of train.py, or of prune_init.py if kimg is 0; none is the teacher itself
    data: str = "none"  # images that play in the game: none, teacher (its own) or train
    all_detectors: bool = True  # or the first alone
    run: str = ""  # name of the training that it comes from, if not its own
    stretches: bool = False  # it is a snapshot of that training, which may become longer
    cut: str = ""  # width that is cut out of what was trained

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.run or self.name}-seed{self.seed}"


def matches(job: Job, patterns: Sequence[str]) -> bool:
    """Whether a job's folder, name or group matches a pattern."""
    return any(fnmatch.fnmatch(name, pattern) for name in (job.key, job.name, job.group) for pattern in patterns)


def selected(jobs: Sequence[Job], patterns: Sequence[str]) -> list[Job]:
    """The jobs that match a pattern; all without patterns.

    Raises:
        UserError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(matches(job, [pattern]) for job in jobs):
            raise UserError(f"--only: no run or group is called {pattern!r}; --list shows them")
    return [job for job in jobs if not patterns or matches(job, patterns)]


def overview(todo: Sequence[Job], out: Path) -> str:
    """One line per job: how far it is."""
    scored = {(row["name"], row["seed"]) for row in execution.read_rows(out / "results.jsonl")}
    lines = []
    for job in todo:
        begun = execution.run_dir(out / "runs" / job.key)
        last = execution.statistics_at(begun / "stats.jsonl", job.kimg) if begun and job.kimg else {}
        state = "scored" if (job.name, job.seed) in scored else f"{last.get('Progress/kimg', 0):g} of {job.kimg} kimg"
        lines.append(f"{job.group:10} {f'{job.name}-seed{job.seed}':36} {state:18} {' '.join(job.arguments)}")
    return "\n".join(lines)


class Bench:
    """Makes, trains and scores networks in a folder.

    Args:
        shop: runs the commands.
        train_data: images of the games with real ones.
        test_data: images to score against.
        for_games: arguments of train.py in every game, and of those with real images.
        snap: thousands of images between snapshots.
        has_classes: the teacher knows classes: distances within them are scored too.
    """

    def __init__(
        self,
        shop: execution.Workshop,
        train_data: Path,
        test_data: Path,
        for_games: tuple[Sequence[str], Sequence[str]],
        snap: int = 25,
        has_classes: bool = False,
    ) -> None:
        self.shop, self.train_data, self.test_data = shop, train_data, test_data
        self.for_games, self.snap, self.has_classes = for_games, snap, has_classes

    def network(self, job: Job) -> Path:
        """The network of a job, trained as far as it is not yet."""
        if not job.arguments:
            return self.shop.teacher
        folder = self.shop.out / "runs" / job.key
        if job.kimg == 0:
            return self._sliced(folder / "slice.pkl", self.shop.teacher, *job.arguments, f"--seed={job.seed}")
        begun = execution.run_dir(folder)
        last = f"network-snapshot-{job.kimg:06d}.pkl"
        if begun is None:
            self.shop.command("train.py", "--cfg=dgl", f"--teacher={self.shop.teacher}", *job.arguments,
                              *self._of_games(job), f"--seed={job.seed}", "--tick=1", f"--snap={self.snap}",
                              "--metrics=none", "--workers=0", f"--outdir={folder}")
        elif not (begun / last).is_file():
            longer = [f"--kimg={job.kimg}"] if job.stretches else []
            self.shop.command("train.py", f"--resume={begun}", *longer)
        run_folder = execution.run_dir(folder)
        assert run_folder is not None
        if job.cut:
            dest = folder / f"width{job.cut.replace('/', 'of')}.pkl"
            return self._sliced(dest, run_folder / last, f"--width={job.cut}")
        return run_folder / last

    def _sliced(self, dest: Path, source: Path, *arguments: str) -> Path:
        if not dest.with_suffix(".cost.json").is_file():
            dest.parent.mkdir(parents=True, exist_ok=True)
            self.shop.command("prune_init.py", f"--teacher={source}", *arguments, "--no-latency", f"--dest={dest}")
        return dest

    def _of_games(self, job: Job) -> list[str]:
        """Options of train.py that concern the images of a game."""
        if job.data == "none":
            return []
        in_all, with_reals = self.for_games
        return ["--data=teacher", *in_all] if job.data == "teacher" else [f"--data={self.train_data}", *with_reals,
                                                                          *in_all]

    def score(self, job: Job, path: Path) -> None:
        """Adds a row for every detector that has none for this network; the first one's holds the agreement too."""
        rows, network = self.shop.rows(), _inside(path, self.shop.out)
        done = {(row["name"], row["seed"], row["detector"]) for row in rows}
        known = {row["detector"]: row for row in rows if row.get("network") == network}  # by another name
        for number, detector in enumerate(self.shop.detectors if job.all_detectors else self.shop.detectors[:1]):
            if (job.name, job.seed, detector.stem) in done:
                continue
            if (twin := known.get(detector.stem)) is not None:
                results, protocol = twin["results"], twin["protocol"]
            else:
                results, protocol = self._measured(path, detector, number == 0)
            row = {"name": job.name, "group": job.group, "title": job.title, "seed": job.seed, "kimg": job.kimg,
                   "detector": detector.stem, "network": network, "results": results, "protocol": protocol,
                   **self._provenance(job)}
            append_line(self.shop.results, json.dumps(row))

    def _measured(self, path: Path, detector: Path, is_first: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Metric → value of a network, and the protocol; precision, recall and agreement by the first detector alone.
        """
        common = [f"--network={path}", f"--data={self.test_data}", f"--detector={detector}"]
        num_gen = f"--num-gen={self.shop.num_gen if is_first else min(SECOND_NUM_GEN, self.shop.num_gen)}"
        metrics = "--metrics=fid50k_full,pr50k3_full" if is_first else "--metrics=fid50k_full"
        outputs = [self.shop.command("calc_metrics.py", *common, metrics, num_gen, "--verbose=false")]
        if is_first:
            outputs.append(self.shop.command("calc_metrics.py", f"--network={path}", f"--teacher={self.shop.teacher}",
                                             "--metrics=agreement", "--verbose=false"))
        records = [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith("{")]
        results = {name: value for record in records for name, value in record["results"].items()}
        if self.has_classes and is_first:
            by_class = json.loads(self.shop.command("-m", "benchmarks.compress.classes", *common, num_gen))
            results[f"intra_fd@{detector.stem}"] = by_class["intra_fd"]
        return results, records[0]["protocol"]

    def _provenance(self, job: Job) -> dict[str, Any]:
        """How a network came about: arguments, versions, statistics and processor time of the training."""
        facts: dict[str, Any] = {"arguments": list(job.arguments), "settings": self.shop.settings}
        begun = execution.run_dir(self.shop.out / "runs" / job.key) if job.kimg else None
        if begun is not None:
            made = json.loads((begun / "training_options.json").read_text()).get("provenance", {})
            facts["provenance"] = {key: value for key, value in made.items() if key != "command"}
            facts["training"] = execution.statistics_at(begun / "stats.jsonl", job.kimg)
            facts["cpu_sec"] = execution.processor_seconds(begun / "stats.jsonl", job.kimg)
        return facts


def _inside(path: Path, folder: Path) -> str:
    """A path relative to the folder, or the name of a file elsewhere."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
