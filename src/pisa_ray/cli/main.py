"""The command line: pisa-ray train, compare, tune, resize, shards, evaluate, predict, report, data.

Exit status: 0 the run ended as planned (also at a stop condition), 1 it failed, 2 bad input (nothing was started or
lost), 130 it was interrupted and left a checkpoint to resume from.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pisa_ray import checks
from pisa_ray.checks import shown
from pisa_ray.cli import last_resort
from pisa_ray.cli.config import check_places, load
from pisa_ray.cli.data import KINDS
from pisa_ray.errors import ConfigError, PisaError, StoppedWaitingError
from pisa_ray.trainer.terminal import answer, escaped, say, streams

#: The most characters of a word, such as a path, that is shown whole.
LONGEST = 500

STATUS = {"finished": 0, "stopped": 0, "interrupted": 130}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The arguments after the program's name; None: those of sys.argv.

    Returns:
        The exit status.
    """
    with streams():
        status = _run(arguments)
    if connection := sys.modules.get("pisa_ray.actors.connection"):  # it is imported only if Ray was needed
        connection.ends_with(status)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    logging.getLogger("pisa_ray").setLevel(logging.WARNING)
    try:
        _check_paths(options)
        status: int = options.run(options)
    except ConfigError as error:
        say(_line(error))
        return 2
    except StoppedWaitingError as error:
        say(_line(error))
        return STATUS["interrupted"]
    except PisaError as error:
        say(_line(error))
        return 1
    except KeyboardInterrupt:
        say("pisa-ray: stopped at once; the last complete checkpoint is kept.")
        return 130
    except (Exception, SystemExit) as error:  # the user's code may raise either
        say(_line(last_resort.sentence(error)))
        return 1
    return status


class _Parser(argparse.ArgumentParser):
    """A parser whose messages are escaped, and whose help may end with a further text."""

    more: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Return the help with the further text; see argparse."""
        return super().format_help() + (f"\n{self.more()}" if self.more else "")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Escape the message and exit; see argparse."""
        super().exit(status, message and escaped(message))


def _check_paths(options: argparse.Namespace) -> None:
    """Refuse paths that no file system accepts, such as names of thousands of characters."""
    for path in options.__dict__.get("run_dirs", []) + list(options.__dict__.values()):
        try:
            if isinstance(path, Path):
                path.lstat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{shown(str(path))} cannot be a path ({reason}): give another one.") from error


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pisa-ray",
        description="Train models with PISA, SISA, NSISA or SISA-D over data shards on Ray workers.",
        epilog="Exit status: 0 ended as planned, 1 failed, 2 bad input, 130 interrupted (--resume goes on).",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a model as a configuration file says")
    train.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the configuration; see docs/configuration.md")
    train.add_argument("--set", action="append", metavar="KEY=VALUE", help="override a setting, e.g. algorithm.sigma=2")
    train.add_argument("--out", type=_place, metavar="DIR", help="the run directory (default: runs/NAME)")
    train.add_argument("--resume", action="store_true", help="go on from the run directory's last checkpoint")
    train.add_argument("--overwrite", action="store_true", help="replace the run that is in the run directory")
    train.add_argument("--quiet", action="store_true", help="show no progress")
    train.set_defaults(run=_train)
    train.more = _keys

    compare = commands.add_parser("compare", help="run algorithms x partitions x seeds at equal work")
    compare.add_argument("config", type=Path, metavar="CONFIG.yaml", help="what to compare; see docs/compare.md")
    compare.add_argument("--set", action="append", metavar="KEY=VALUE", help="override a setting, e.g. base.rounds=50")
    compare.add_argument(
        "--out", type=_place, metavar="DIR", help="the folder for runs and tables (default: runs/NAME)"
    )
    compare.add_argument("--resume", action="store_true", help="keep the runs that ended and go on with the others")
    compare.add_argument("--quiet", action="store_true", help="show no progress")
    compare.set_defaults(run=_compare)

    tune = commands.add_parser("tune", help="search for settings with Ray Tune")
    tune.add_argument("config", type=Path, metavar="CONFIG.yaml", help="what to search for; see docs/tuning.md")
    tune.add_argument("--set", action="append", metavar="KEY=VALUE", help="override a setting, e.g. samples=20")
    tune.add_argument("--out", type=_place, metavar="DIR", help="the folder of the search (default: runs/NAME)")
    tune.add_argument("--resume", action="store_true", help="go on with a search that was interrupted")
    tune.add_argument("--quiet", action="store_true", help="show no progress")
    tune.set_defaults(run=_tune)

    resize = commands.add_parser("resize", help="change the number of workers of a run that is going on")
    resize.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    resize.add_argument("workers", type=int, metavar="N", help="how many there should be, as the cluster has room")
    resize.set_defaults(run=_resize)

    shards = commands.add_parser("shards", help="let a shard leave the problem of a run that is going on, or data join")
    shards.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    which = shards.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--remove", type=int, metavar="SHARD", help="this shard leaves for good, and its message the sum"
    )
    which.add_argument("--add", metavar="PATH", help="Parquet data, a path or URI, join as a shard with the next id")
    _add_trust(shards)
    shards.set_defaults(run=_shards)

    _add_uses(commands)

    report = commands.add_parser("report", help="write a self-contained HTML page about one or more runs")
    report.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    report.add_argument(
        "--out", type=_place, metavar="FILE", help="the page (default: report.html in the first RUN_DIR)"
    )
    report.set_defaults(run=_report)

    _add_data(commands)
    return parser


def _keys() -> str:
    from pisa_ray.cli.keys import text

    return text()


def _add_uses(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", help="measure a run's saved model on the test data, and per shard")
    evaluate.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")
    evaluate.add_argument("--data", metavar="PATH", help="where the training data lie now, if they were moved")
    evaluate.add_argument("--test", metavar="PATH", help="where the test data lie now, if they were moved")
    evaluate.add_argument("--model", metavar="MODULE:FUNCTION", help="makes the model, if the run could not record it")
    evaluate.add_argument("--set", action="append", metavar="KEY=VALUE", help="say what else it could not record")
    _add_trust(evaluate)
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser("predict", help="write what a run's model says of rows, as a Parquet file")
    predict.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    predict.add_argument("data", metavar="DATA", help="a Parquet file or folder with the run's input columns")
    predict.add_argument("--out", type=_place, required=True, metavar="FILE", help="the Parquet file")
    predict.add_argument("--best", action="store_true", help="by the best checkpoint, not by the last round's weights")
    predict.add_argument("--model", metavar="MODULE:FUNCTION", help="makes the model, if the run could not record it")
    _add_trust(predict)
    predict.set_defaults(run=_predict)


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="make a Parquet file of a well-known data set, of images or of a CSV file")
    data.add_argument("name", choices=KINDS, metavar="NAME", help=", ".join(KINDS))
    data.add_argument(
        "--from",
        type=_place,
        required=True,
        dest="source",
        metavar="FOLDER",
        help="where its files are; see docs/data.md",
    )
    data.add_argument(
        "--out", type=_place, required=True, metavar="FILE", help="the Parquet file, such as train.parquet"
    )
    data.add_argument("--split", choices=("train", "test"), help="which rows of a well-known data set (default: train)")
    data.add_argument("--label", metavar="COLUMN", help="the label column of a CSV file")
    data.add_argument("--like", type=_place, metavar="FILE", help="number classes as in this file (images, csv)")
    data.set_defaults(run=_data)


def _add_trust(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trust", action="store_true", help="run code that RUN_DIR/config.yaml names, of packages not installed too"
    )


# The commands import what they need when they run, so that --help and a misspelt key take no time.


def _train(options: argparse.Namespace) -> int:
    config = load(options.config, options.set)
    check_places(config)
    from pisa_ray.cli.train import train

    out = _out(options, config.run.name)
    again = {"resume": options.resume, "overwrite": options.overwrite}
    result = train(config, out, **again, progress=not options.quiet)
    answer(f"{result.status} after {result.metrics['rounds']} rounds in {result.metrics['seconds']:.1f} s")
    for name in ("test_accuracy", "test_loss", "validation_accuracy", "train_loss", "weights_sha256"):
        if result.metrics.get(name) is not None:
            value = result.metrics[name]
            answer(f"  {name.replace('_', ' '):20} {value if isinstance(value, str) else f'{value:.4f}'}")
    answer(f"  {'run directory':20} {result.path}")
    if result.status == "interrupted":
        answer(_go_on("train", options, result.path))
    return STATUS[result.status]


def _compare(options: argparse.Namespace) -> int:
    from pisa_ray.cli.comparison import Spec

    spec = Spec.load(options.config, options.set)
    spec.look()
    from pisa_ray.cli.compare import compare

    out = _out(options, spec.file.name)
    result = compare(spec, out, resume=options.resume, progress=not options.quiet)
    if result.status == "interrupted":
        answer(_go_on("compare", options, result.path))
        return STATUS["interrupted"]
    answer((result.path / "table.md").read_text(encoding="utf-8"))
    answer(f"page: {result.path / 'index.html'}")
    for failure in result.failures:
        say(_line(failure))
    return 1 if result.failures else 0


def _tune(options: argparse.Namespace) -> int:
    from pisa_ray.cli.search import Search

    spec = Search.load(options.config, options.set)
    spec.look()
    from pisa_ray.cli.tune import search

    out = _out(options, spec.file.name)
    status = search(spec, out, resume=options.resume, progress=not options.quiet)
    if status == "interrupted":
        answer(_go_on("tune", options, out))
        return STATUS[status]
    answer((out / "table.md").read_text(encoding="utf-8"))
    answer(f"best settings: {out / 'best.yaml'}")
    return 0


def _place(text: str) -> Path:
    """Return the path that --out, or another option, names."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"it is {text!r}, but it must be a path; leave it out for the default")
    if "://" in text:
        raise argparse.ArgumentTypeError(f"it is {text!r}, but it must be a path on this machine, and no address")
    return Path(text)


def _out(options: argparse.Namespace, name: str | None) -> Path:
    """Return the folder to write to: that of --out, or one in runs/ with the run's name, or else the file's."""
    key = "name" if name is not None else f"{options.config} without its ending"
    folder: str = checks.folder_name(key, options.config.stem if name is None else name)
    return Path("runs") / folder if options.out is None else options.out


def _go_on(command: str, options: argparse.Namespace, out: Path) -> str:
    """Return the command that goes on after an interruption."""
    settings = [part for setting in options.set or () for part in ("--set", setting)]
    again = ["pisa-ray", command, str(options.config), *settings, "--out", str(out), "--resume"]
    return f"Go on with: {shlex.join(again)}"


def _resize(options: argparse.Namespace) -> int:
    from pisa_ray.trainer.run_directory import RunDirectory

    directory = RunDirectory(options.run_dir)
    if options.workers < 1:
        raise ConfigError(f"N is {options.workers}, but a run can be resized to 1 worker or more.")
    if directory.config_while_running().get("workers") == 0:
        raise ConfigError(f"the run in {directory.path} has workers: 0, a single process: it cannot be resized.")
    directory.requests.ask_resize(options.workers)
    answer(f"asked for {options.workers} workers; {directory.path / 'events.jsonl'} tells when they are there")
    return 0


def _shards(options: argparse.Namespace) -> int:
    from pisa_ray.cli.shards import ask
    from pisa_ray.trainer.changes import Asked

    asked = Asked(remove=options.remove) if options.add is None else Asked.to_add(options.add)
    directory = ask(options.run_dir, asked, trust=options.trust)
    what = f"shard {asked.remove} to leave" if asked.add is None else f"{asked.add} to join"
    answer(f"asked for {what}; {directory.path / 'events.jsonl'} tells when it is done")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from pisa_ray.cli.evaluate import evaluate, table

    now = {"train": options.data, "test": options.test, "model": options.model, "settings": options.set or ()}
    measured = evaluate(options.run_dir, trust=options.trust, **now)
    return 0 if answer(_json(measured) if options.json else table(measured)) else 1


def _predict(options: argparse.Namespace) -> int:
    from pisa_ray.cli.predict import predict

    how = {"best": options.best, "model": options.model, "trust": options.trust}
    answer(predict(options.run_dir, options.data, options.out, **how))
    return 0


def _report(options: argparse.Namespace) -> int:
    from pisa_ray.cli.report import write_report

    answer(f"report: {write_report(options.run_dirs, options.out).resolve()}")
    return 0


def _data(options: argparse.Namespace) -> int:
    from pisa_ray.cli.data.make import make

    known = {"split": options.split, "label": options.label, "like": options.like}
    answer(make(options.name, options.source, options.out, **known))
    return 0


def _line(error: PisaError | str) -> str:
    """Return an error as one line, in the words of the command line."""
    from pisa_ray.cli.words import spoken

    words = (word if len(word) <= LONGEST else f"{word[:100]} ... {word[-50:]}" for word in str(error).split())
    return f"pisa-ray: {spoken(' '.join(words))}"


def _json(value: Any) -> str:
    import json

    from pisa_ray.trainer.records import plain

    return json.dumps(plain(value), indent=1, allow_nan=False)


if __name__ == "__main__":
    sys.exit(main())
