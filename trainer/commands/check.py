"""`trainer check`: the command line of trainer/data/check.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.console import status
from adapters.errors import ConfigError, DataError
from adapters.models import base_models, gpu
from trainer import console
from trainer.console import log

if TYPE_CHECKING:
    from trainer.data.check import CountTokens
    from trainer.data.examples import PlacedExample
    from trainer.data.findings import CheckReport, Finding
    from trainer.data.statistics import Tokens

EXAMPLES = """examples:
  trainer check mine.jsonl
  trainer check mine.jsonl --heldout kept_back.jsonl        also looks for emails of one file in the other
  trainer check mine.jsonl --fix cleaned.jsonl              writes what can be trained on
  trainer check mine.jsonl --base ./my-model --max-length 2048 --json

exit status: 0 ready or usable with warnings, 1 not usable, 2 after an error
"""
HELP = """Look through files of emails before you train on them: rows that cannot be used, lengths, duplicates, emails
that are also in another file or in the shipped evaluation, placeholders, missing ends, languages, variety, personal
data. Then a verdict, and what to do. The files are only read."""
# Places listed for a finding, and for one cluster of duplicates.
MAX_PLACES, MAX_ALIKE = 10, 4
MAX_BAR_CHARACTERS = 40


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "check", parents=[shared], help="is a file of emails fit to train on?", description=HELP, epilog=EXAMPLES
    )
    option = parser.add_argument
    option("files", metavar="FILE", type=Path, nargs="+", help="emails, as `trainer sft --data` reads them")
    option("--heldout", metavar="FILE", type=Path, action="append", default=[], help="emails kept back to measure on")
    option("--max-length", metavar="N", type=int, help="tokens of task and email together (default: 1024, as in sft)")
    option("--fix", metavar="FILE", type=Path, help="write a cleaned copy, and the removed rows to FILE.changes.jsonl")
    option("--force", action="store_true", help="overwrite what --fix writes")
    parser.set_defaults(command=_check)


def _check(args: argparse.Namespace) -> int:
    from trainer.data.check import check, fix
    from trainer.data.examples import read_rows, write_rows
    from trainer.training.recipe import Recipe

    changes_file = args.fix and args.fix.with_name(f"{args.fix.name}.changes.jsonl")
    if args.fix:
        _check_output([args.fix, changes_file], [*args.files, *args.heldout], args.force)
    missing = [str(file) for file in (*args.files, *args.heldout) if not file.is_file()]
    if missing:
        raise ConfigError(f"there is no file {', '.join(missing)}", "give files of emails, as for trainer sft --data")
    rows, problems = read_rows(args.files)
    heldout = _heldout(args.heldout)
    max_length = args.max_length or Recipe.model_fields["max_length"].default
    counter = _counter(args.base)
    with status("checking") as begin:
        report = check(rows, problems, counter, max_length, heldout, begin)
    if args.fix:
        kept, changes = fix(rows, report)
        write_rows(kept, args.fix)
        write_rows(map(asdict, changes), changes_file)
        log(f"wrote {args.fix}: {len(kept)} rows; {changes_file} lists the {len(changes)} left out")
    if args.json:
        print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(report)))
    return 1 if report.verdict == "not usable" else 0


def _heldout(files: list[Path]) -> list[PlacedExample]:
    from trainer.data.examples import read_rows

    rows, problems = read_rows(files)
    if problems:
        raise DataError(
            f"{len(problems)} held-out rows cannot be used:", list(map(str, problems)), "mend or delete these rows"
        )
    return rows


def _counter(base: str | None) -> CountTokens | None:
    """None without --base if the default base model is not on this machine: a check downloads nothing unasked."""
    found = base_models.find(base, log) if base else base_models.known(base_models.default(bool(gpu.names())).base)
    if not found:
        return None
    # Gives the same tokens as AutoTokenizer, whose import takes 12 s on 2 cores, where this one takes 2 s.
    from transformers import PreTrainedTokenizerFast

    from trainer.data.check import token_counter

    return token_counter(PreTrainedTokenizerFast.from_pretrained(found.path))


def _check_output(written: list[Path], read: list[Path], force: bool) -> None:
    for file in written:
        if file.resolve() in {other.resolve() for other in read}:
            raise ConfigError(f"{file} is one of the files that are checked", "--fix writes a copy: name another file")
        console.check_new_file(file, force)


def _lines(report: CheckReport) -> Iterator[str]:
    yield f"{', '.join(report.files)}: {len(report.rows)} emails, {report.different} different ones"
    if report.tokens:
        yield from _histogram(report.tokens, report.max_length)
    yield f"kinds       {_counted(report.kinds)}"
    yield f"voices      {_counted(report.voices)}"
    yield f"threads     {report.threads or 'none named'}"
    languages, variety = report.languages, report.variety
    yield f"languages   {_counted(languages.found)} (of {languages.asked} emails of 20 words or more)"
    yield f"variety     {variety.distinct_1:.0%} of all words and {variety.distinct_2:.0%} of all pairs of words differ"
    yield f"            {variety.opening:.0%} of the emails share the commonest opening, {variety.sign_off:.0%} the end"
    yield f"personal    {_counted(report.personal)}"
    for number, finding in enumerate(report.findings, start=1):
        yield f"\n{number}. {'note: ' if finding.level == 'notes' else ''}{finding.sentence}"
        places = _places(report, finding)
        yield from (f"   {place}" for place in places[:MAX_PLACES])
        if len(places) > MAX_PLACES:
            yield f"   and {len(places) - MAX_PLACES} more; --json lists all"
        yield f"   -> {finding.remedy}"
    yield f"\n{report.verdict}"


def _places(report: CheckReport, finding: Finding) -> list[str]:
    if finding.name == "unusable":
        return list(map(str, report.unusable))
    if finding.name == "duplicates":
        return [_alike(report.places(cluster)) for cluster in report.near]
    return report.places(finding.rows)


def _alike(places: list[str]) -> str:
    more = len(places) - MAX_ALIKE
    return " = ".join(places[:MAX_ALIKE]) + (f" and {more} more" if more > 0 else "")


def _histogram(tokens: Tokens, max_length: int) -> Iterator[str]:
    yield (
        f"tokens      {tokens.total:,} in all; of an email with its task {tokens.shortest} to {tokens.longest}, "
        f"half of them up to {tokens.median}; {max_length} are accepted"
    )
    highest = max(count for _, _, count in tokens.histogram)
    for start, below, count in tokens.histogram:
        yield f"{start:8}-{below - 1:<6} {'█' * max(round(MAX_BAR_CHARACTERS * count / highest), count > 0)} {count}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none found"
