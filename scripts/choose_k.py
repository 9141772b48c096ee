#!/usr/bin/env python
"""How many layers can go: python scripts/choose_k.py --max_loss 1 2 3 --tasks sst2 rte --drop_strategy top [flags]

The development set is halved: for each threshold the largest K whose loss is within it on one half is chosen, and its
loss on the other half is reported (Sajjad et al. 2023, Table 4). Runs that are needed and missing are done in --store;
the same command goes on. The other flags are those of run_glue.py. At the end: a table, a picture of loss by K, and the
folder of the model that was chosen.
"""

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.executing import add_engine_flags, asking_to_stop, find_places, make_engine, refuse_misspelt


def main(argv: list[str]) -> int:
    """The exit code: 0 done, 1 a run failed, 2 unusable input, 130 stopped by the user."""
    from layerdrop.errors import UserError
    from layerdrop.trials import Stopped

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--max_loss", nargs="+", type=float, default=[1.0], help="points that may be lost")
    parser.add_argument("--percent", action="store_true", help="percent of the full model's score instead of points")
    parser.add_argument("--tasks", nargs="+", default=["mrpc"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="the median over these counts")
    parser.add_argument("--k", nargs="+", type=int, help="numbers of layers to choose from (default: all)")
    parser.add_argument("--exhaustive", action="store_true", help="try every K: the loss need not grow with K")
    parser.add_argument("--compare", choices=("sajjad2023",), help="published figures beside one's own")
    parser.add_argument("--store", default="runs/choose_k", help="folder of the runs")
    parser.add_argument("--figures", help="folder of the pictures (PNG and PDF)")
    parser.add_argument("--format", choices=("md", "latex", "csv"), default="md", help="of the table")
    add_engine_flags(parser)
    try:
        args, words = parser.parse_known_args(argv)
        refuse_misspelt(parser, words)
        return choose(args, words)
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Stopped):
        print("stopped. The same command goes on.", file=sys.stderr)
        return 130


def choose(args: argparse.Namespace, words: list[str]) -> int:
    """Do what the flags say."""
    from layerdrop.progress import Display
    from layerdrop.report.layer_figures import lines, save
    from layerdrop.report.render import render

    where = find_places(args)
    questions = [Question(task, args, words) for task in args.tasks]
    engine = make_engine(args, where, all(question.gives_precision for question in questions))
    display = Display(sys.stderr)
    try:
        with asking_to_stop(display.say) as stop:
            for question in questions:
                question.answer(engine, display, stop)
    finally:
        display.close()
        engine.close()
    print(render([table(questions, args)], args.format))
    for question in questions:
        if question.folder:
            print(f"{question.task.name}: the model without {question.answers[-1].k} layers is in {question.folder}")
    if args.figures:
        losses = {q.task.name: sorted((k, q.loss_at(k, 0)) for k in q.known) for q in questions}
        series = {name: ([k for k, _ in of], [value for _, value in of]) for name, of in losses.items()}
        unit = "percent" if args.percent else "points"
        figure = lines(series, f"loss, {unit}", levels=args.max_loss, x="K, layers dropped")
        print(*save(figure, args.figures, "loss_by_k"), sep="\n", file=sys.stderr)
    return 0


class Question:
    """How many layers a task can lose."""

    def __init__(self, task: str, args: argparse.Namespace, words: list[str]):
        from layerdrop.arguments import flags_of, parse
        from layerdrop.checkpoints import Checkpoint, HubOptions, work_offline_unless_reachable
        from layerdrop.errors import UserError
        from layerdrop.study import QUIET, refuse_flags_of_one_run
        from layerdrop.surgery import droppable

        refuse_flags_of_one_run(words)
        settings = flags_of(QUIET | {"eval_strategy": "no", "drop_strategy": "top", "task_name": task})
        self.args, self.words = args, [*settings, *words]
        arguments = parse([*self.words, "--drop_k", "0"])
        if arguments.needs_hub:
            work_offline_unless_reachable()
        self.gives_precision = bool({"precision", "bf16", "fp16"} & arguments.given)
        spec, options = arguments.to_spec()
        if not (spec.train and options.evaluate):
            raise UserError("--do_train, --do_eval, --do_predict: choosing K trains and evaluates. Leave them out.")
        self.config = Checkpoint.open(spec.model, HubOptions.of(options)).config
        most = min(len(droppable(self.config)), self.config.num_hidden_layers - 1)
        self.all_k = sorted(set(args.k or range(1, most + 1)))
        if not 1 <= self.all_k[0] <= self.all_k[-1] <= most:
            raise UserError(f"--k {' '.join(map(str, self.all_k))}: this model can lose 1 to {most} layers.")
        self.model, self.strategy = spec.model.name, arguments.drop.drop_strategy
        self.keeps_model = options.save_model or not any(word.startswith("--save_model") for word in words)
        self.known: dict[int, list] = {}
        """K -> the records, one for each seed."""
        self.answers: list = []
        self.folder: str | None = None

    def answer(self, engine, display, stop) -> None:
        """Choose K for every threshold; do the runs that this takes."""
        from layerdrop.analysis.tolerance import largest_k

        self.engine, self.display, self.stop = engine, display, stop
        self.runs(0)
        for max_loss in sorted(self.args.max_loss):
            answer = largest_k(self.possible(), lambda k: self.loss_at(k, 0), max_loss, self.args.exhaustive)
            self.answers.append(answer)
            display.say(f"{self.task.name}: K = {answer.k} within {max_loss:g}, after {len(self.known) - 1} tried")
        if self.answers[-1].k and self.keeps_model:
            self.folder = self.keep(self.answers[-1].k)

    def possible(self) -> list[int]:
        """The K that the strategy can drop."""
        from layerdrop.errors import UserError

        found = []
        for k in self.all_k:
            try:
                self.job(k, self.args.seeds[0])
                found.append(k)
            except UserError as error:
                self.display.say(f"note: {error}")
        return found

    def job(self, k: int, seed: int, save_model: bool = False):
        """The run of a K and a seed. Raises UserError where the strategy cannot drop so many."""
        from layerdrop.arguments import parse
        from layerdrop.engines.base import Job
        from layerdrop.runs.store import PRIOR_FOLDER, SCORE_FOLDER, Store
        from layerdrop.selection import check_selection

        spec, options = parse([*self.words, "--drop_k", str(k), "--seed", str(seed)]).to_spec()
        check_selection(spec.drop, (), self.config)
        prior = Path(self.args.store) / PRIOR_FOLDER
        places = {"folder": Store(self.args.store).folder(spec), "prior_store": str(prior)}
        places["score_store"] = options.score_store or str(prior / SCORE_FOLDER)
        return Job(spec, replace(options, **places, resume="auto", save_model=save_model))

    def runs(self, k: int) -> list:
        """The records of a K, one for each seed; done where they are missing. Raises UserError for a failure."""
        if k not in self.known:
            jobs = [self.job(k, seed) for seed in self.args.seeds]
            records = self.execute(jobs)
            self.known[k] = [records[job.spec.id] for job in jobs]
        return self.known[k]

    def execute(self, jobs: list) -> dict:
        """Id -> record of every job. Raises UserError for a failure, Stopped where the user stops."""
        from layerdrop.errors import UserError
        from layerdrop.execute import execute
        from layerdrop.trials import Stopped

        progress = execute(jobs, self.engine, self.display.update, self.stop)
        if progress.stopped:
            raise Stopped
        if progress.failed:
            job, error = progress.failed[0]
            raise UserError(f"{job.name}: this run is needed, and failed. {error}")
        return progress.records

    def keep(self, k: int) -> str:
        """The folder of the model that was chosen, with the first seed; it is trained again if it was not kept."""
        from layerdrop.runs.store import forget_unless_kept, holds_trained

        job = self.job(k, self.args.seeds[0], save_model=True)
        while not holds_trained(job.options.folder, job.spec):
            self.display.say(f"{job.name} once more, to keep its model")
            forget_unless_kept(job.options.folder, job.spec)
            self.execute([job])
        return job.options.folder

    @property
    def task(self):
        """Of the records."""
        from layerdrop.tasks import DEMO_TASKS, TASKS, custom_task

        record = self.known[0][0]
        return (TASKS | DEMO_TASKS).get(record.spec.data.task) or custom_task("", (), "", tuple(record.labels))

    def loss_at(self, k: int, half: int) -> float:
        """On one of the halves."""
        from layerdrop.analysis.tolerance import loss

        full, cut = ([self._score(record, half) for record in self.runs(of)] for of in (0, k))
        return loss(full, cut, self.args.percent)

    def _score(self, record, half: int) -> float:
        from layerdrop.analysis.tolerance import halves, score
        from layerdrop.runs.predictions import as_numbers, read_predictions

        labels, predictions = (as_numbers(self.task, shown) for shown in read_predictions(record.folder)[1:])
        return score(predictions, labels, halves(labels, self.task)[half], self.task)


def table(questions: list[Question], args: argparse.Namespace):
    """For each task and threshold: K, its loss on both halves, the runs that it took."""
    from layerdrop.report.tables.base import Table

    rows, values = [], []
    published = _published() if args.compare else {}
    for question in questions:
        name = Path(question.model.rstrip("/")).name
        short = name.removesuffix("-uncased").removesuffix("-cased")
        for answer in question.answers:
            on = [question.loss_at(answer.k, half) for half in (0, 1)]
            value = {"model": name, "task": question.task.name, "max_loss": answer.max_loss, "k": answer.k}
            value |= {"loss_chosen_on": on[0], "loss_reported": on[1], "tried": len(answer.tried)}
            theirs = published.get((short, question.task.name, answer.max_loss))
            row = [question.task.name, f"{answer.max_loss:g}", str(answer.k), f"{on[0]:.2f}", f"{on[1]:.2f}"]
            row.append(" ".join(map(str, answer.tried)))
            if args.compare:
                row.append(f"K = {theirs[0]}, {theirs[1]:.2f}" if theirs else "")
                value |= {"published_k": theirs and theirs[0], "published_loss": theirs and theirs[1]}
            rows.append(row)
            values.append(value)
    unit = "percent of the full model's score" if args.percent else "points"
    seeds = f"{len(args.seeds)} seed{'s' * (len(args.seeds) > 1)}"
    notes = [
        f"Losses in {unit}, median over {seeds}. K is chosen on one half of the development set; its loss on the other "
        "half is what to expect.",
    ]
    if not args.exhaustive:
        notes.append("By bisection, which assumes that the loss grows with K; --exhaustive tries every K.")
    odd = {q.task.name: a.exceptions for q in questions for a in q.answers if a.exceptions}
    notes += [f"{name}: K = {', '.join(map(str, of))} lose more than a larger K." for name, of in odd.items()]
    header = ["task", "may lose", "K", "loss, chosen on", "loss, other half", "K tried"]
    header += ["published"] * bool(args.compare)
    title = f"{questions[0].model}: layers that can go by {questions[0].strategy}"
    return Table("tolerance", title, header, rows, notes, values)


def _published() -> dict[tuple[str, str, float], tuple[int, float]]:
    from layerdrop.report.published import FOLDER

    with open(FOLDER / "sajjad2023_table4_layers_within_threshold.csv", encoding="utf-8", newline="") as file:
        return {
            (row["model"], row["task"], float(row["threshold_percent"])): (
                int(row["layers_dropped"]),
                float(row["holdout_loss_points"]),
            )
            for row in csv.DictReader(file)
        }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
