"""Runs the experiments one after the other by the project's own command lines; what is done is not done again."""
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from dnnlib.errors import UserError
from dnnlib.files import write_json_atomic

from .table import Run

ROOT = Path(__file__).resolve().parents[2]
TICK_KIMG = 5  # thousands of images between status lines; a state is saved at every fifth


class OutOfTime(Exception):
    """The budget is used up, or a signal arrived; the unfinished run has been saved."""


class Workshop:
    """The output folder, its data sets, and the commands that work in it.

    Args:
        out: the folder.
        settings: everything that networks depend on besides the table; a folder made with others is refused.
        teacher: network pickle.
        detectors: what to score with.
        num_gen: generated images per score.
        deadline: `time.monotonic()` at which to stop; None never does.

    Raises:
        UserError: the folder was made with other settings, or another process works in it.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        teacher: Path,
        detectors: list[Path],
        num_gen: int,
        deadline: float | None,
    ) -> None:
        self.out, self.settings, self.teacher = out, settings, teacher
        self.detectors, self.num_gen, self.deadline = detectors, num_gen, deadline
        self.results = out / "results.jsonl"
        self._child: subprocess.Popen[str] | None = None
        self._stopped = False
        out.mkdir(parents=True, exist_ok=True)
        self._lock = (out / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(f"--out: another process is at work in {out}; wait for it, or name a new folder") from None
        record = out / "settings.json"
        if record.is_file() and (old := json.loads(record.read_text())) != settings:
            self._lock.close()
            differing = sorted(key for key in {*old, *settings} if old.get(key) != settings.get(key))
            raise UserError(f"--out: {out} was made with another {', '.join(differing)}; name a new folder")
        write_json_atomic(record, settings)
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)

    def check_time(self) -> None:
        """Raises OutOfTime once it is time to stop."""
        if self._stopped or (self.deadline is not None and time.monotonic() >= self.deadline):
            raise OutOfTime

    def command(self, *words: str) -> str:
        """Runs a command line of the project, shows its lines in OUT/log.txt, and returns its stdout.

        At the deadline it gets SIGTERM, upon which a training saves its state.

        Raises:
            OutOfTime: it was stopped; UserError: it failed.
        """
        self.check_time()
        click.echo(f"$ python {shlex.join(words)}")
        env = {**os.environ, "DNNLIB_CACHE_DIR": str(self.out.resolve() / "cache"), "PYTHONUNBUFFERED": "1"}
        with (self.out / "log.txt").open("a") as log, (self.out / "stdout.txt").open("w+") as stdout:
            log.write(f"$ python {shlex.join(words)}\n")
            log.flush()
            process = subprocess.Popen([sys.executable, *words], stdout=stdout, stderr=log, text=True, env=env,
                                       cwd=ROOT, pass_fds=[self._lock.fileno()], start_new_session=True)
            self._child = process
            try:
                process.wait(None if self.deadline is None else max(self.deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                self._note(signal.SIGTERM, None)
                process.wait()
            finally:
                self._child = None
            stdout.seek(0)
            output = stdout.read()
            log.write(output)
        if self._stopped:
            raise OutOfTime
        if process.returncode != 0:
            lines = (self.out / "log.txt").read_text().rstrip().splitlines()
            raise UserError(f"{words[0]} ended with exit status {process.returncode}: {lines[-1]}")
        return output

    def data(self, name: str, source: Path) -> Path:
        """A data set as a zip: `source` itself, or made of an IDX file by dataset_tool.py."""
        if source.suffix == ".zip":
            return source
        dest = self.out / f"{name}.zip"
        if not dest.is_file():
            self.command("dataset_tool.py", f"--source={source}", f"--dest={dest}")
        return dest

    def network(self, run: Run, seed: int, train_data: Path) -> dict[int, Path]:
        """Makes or trains the network of a row; returns length in kimg → pickle of everything to be scored."""
        folder = self.out / "runs" / f"{run.name}-seed{seed}"
        if run.kimg == 0:
            if not run.arguments:
                return {0: self.teacher}
            dest = folder / "slice.pkl"
            if not dest.with_suffix(".cost.json").is_file():
                folder.mkdir(parents=True, exist_ok=True)
                self.command("prune_init.py", f"--teacher={self.teacher}", *run.arguments, f"--seed={seed}",
                             "--no-latency", f"--dest={dest}")
            return {0: dest}
        begun = run_dir(folder)
        last = f"network-snapshot-{run.kimg:06d}.pkl"
        if begun is None:
            self.command("train.py", *self.train_arguments(run, seed, train_data), f"--outdir={folder}")
        elif not (begun / last).is_file():
            self.command("train.py", f"--resume={begun}")
        run_folder = run_dir(folder)
        assert run_folder is not None
        return {kimg: run_folder / f"network-snapshot-{kimg:06d}.pkl" for kimg in (*run.also_at, run.kimg)}

    def train_arguments(self, run: Run, seed: int, train_data: Path) -> list[str]:
        """The arguments of train.py, without the output folder."""
        return ["--cfg=dgl", "--recipe=paper", f"--teacher={self.teacher}", *run.arguments, f"--data={train_data}",
                "--cond=false", f"--kimg={run.kimg}", f"--seed={seed}", f"--gamma={self.settings['gamma']}",
                f"--tick={min(TICK_KIMG, run.kimg)}", "--snap=5", "--metrics=none", "--workers=0"]

    def rows(self) -> list[dict[str, Any]]:
        """All results so far; a line that was cut short is left out."""
        return read_rows(self.results)

    def score(self, run: Run, seed: int, kimg: int, network: Path, test_data: Path) -> None:
        """Adds a row for every detector that has none for this network; lengths on the way get the first alone."""
        done = {(row["name"], row["seed"], row["kimg"], row["detector"]) for row in self.rows()}
        for number, detector in enumerate(self.detectors if kimg == run.kimg else self.detectors[:1]):
            if (run.name, seed, kimg, detector.stem) in done:
                continue
            metrics = "fid50k_full,pr50k3_full" if number == 0 else "fid50k_full"
            output = self.command("calc_metrics.py", f"--network={network}", f"--metrics={metrics}",
                                  f"--data={test_data}", f"--detector={detector}",
                                  f"--num-gen={self.num_gen}", "--verbose=false")
            records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
            row = {"name": run.name, "group": run.group, "title": run.title, "seed": seed, "kimg": kimg,
                   "detector": detector.stem, "results": {k: v for f in records for k, v in f["results"].items()},
                   "protocol": records[0]["protocol"], **self._provenance(run, network, kimg)}
            with self.results.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _provenance(self, run: Run, network: Path, kimg: int) -> dict[str, Any]:
        """How a network came about: arguments, versions, training statistics at that length."""
        facts: dict[str, Any] = {"arguments": list(run.arguments), "settings": self.settings}
        options = network.parent / "training_options.json"
        if run.kimg and options.is_file():
            provenance = json.loads(options.read_text()).get("provenance", {})
            facts["provenance"] = {key: value for key, value in provenance.items() if key != "command"}
            facts["training"] = statistics_at(network.parent / "stats.jsonl", kimg)
        return facts


def run_dir(folder: Path) -> Path | None:
    """The training run in a folder, if one has begun."""
    begun = sorted(folder.glob("*/training_options.json"))
    return begun[-1].parent if begun else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, but for a last one that was cut short."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def rows_to_report(files: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """All rows of the files of --rows, or of the runs in a folder; what several files hold counts once.

    Raises:
        UserError: if there are none.
    """
    rows: list[dict[str, Any]] = []
    for path in [Path(name) for name in files] or [out / "results.jsonl"]:
        in_file = read_rows(path)
        if not in_file:
            raise UserError(f"{'--rows' if files else '--out'}: {path}: no rows of results there; --out names the "
                            "folder of runs that were scored, --rows a file of rows such as docs/results/*.jsonl")
        rows += [row for row in in_file if row not in rows]
    return rows


def statistics_at(path: Path, kimg: int) -> dict[str, float]:
    """The means of a run's statistics in the tick that ended at a length, without those of resources."""
    best: dict[str, Any] = {}
    for row in read_rows(path):
        if row["Progress/kimg"]["mean"] <= kimg + 1:
            best = row
    wanted = ("Loss/", "Progress/kimg", "Timing/sec_per_kimg", "Timing/total_sec")
    return {key: value["mean"] for key, value in best.items() if key.startswith(wanted)}


def processor_seconds(path: Path, kimg: float) -> float | None:
    """What a run's processes had used when the tick ended that brought it to a length, in processor seconds.

    A process that was interrupted is counted up to its last tick. None if the run has not come so far, or was made by a
    version that did not note it.
    """
    total = before = 0.0
    for row in read_rows(path):
        if "Resources/cpu_sec" not in row:
            return None
        now = row["Resources/cpu_sec"]["mean"]
        total += now - before if now >= before else now
        before = now
        if row["Progress/kimg"]["mean"] >= kimg:
            return total
    return None
