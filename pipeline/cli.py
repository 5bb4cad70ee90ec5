"""The command line: ``python -m dmnet VERB [options] [--section.setting value]``.

Exit codes: 0 all done; 1 done, and some items were set aside (``--max-bad`` allows a number);
2 could not run: one paragraph on stderr says why and the way out; 70 a fault of the program, whose
traceback is kept in a file; 130 and 143 stopped by Ctrl-C and by SIGTERM, as shells count it.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import itertools
import logging
import os
import shlex
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType

from dmnet.core import config, links
from dmnet.core.config_help import describe
from dmnet.core.dataset import SPLITS, Dataset
from dmnet.core.errors import ConfigError, DmnetError, MissingInputError, printable
from dmnet.core.memory import is_out_of_memory
from dmnet.core.presets import parse_overrides
from dmnet.pipeline.context import STAGES, Context, stage_module
from dmnet.pipeline.options import context_of, stage_parser
from dmnet.pipeline.outcome import Parser, exit_code

_HELP = {
    "density": "ground-truth density maps from annotations",
    "train-density": "train the density network on images and density maps",
    "predict-density": "predict density maps with a trained network or WEIGHTS",
    "crop": "cut the dense regions out of the images",
    "convert": "annotations of images and crops to VOC XML, COCO JSON and YOLO txt",
    "train-detector": "train the detector on images and crops",
    "detect": "run the detector on whole images and on crops",
    "fuse-eval": "merge both results with NMS, score them, write the report",
    "all": "every stage in order: the training split, then the split named by --split",
    "merge": "merge STAGE: parts made with --shard as one artifact",
    "status": "what is done, what is stale, and why",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    _open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if links.OPTION in arguments:
        token = links.ALLOWED.set(True)
        try:
            return main([word for word in arguments if word != links.OPTION])
        finally:
            links.ALLOWED.reset(token)
    verb, rest = (arguments or ["--help"])[0], arguments[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    try:
        with _stoppable():
            if verb in ("-h", "--help"):
                print(_overview())
                code = 0
            else:
                with _above_the_bars():
                    code = _dispatch(verb, rest)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # whoever read the output has left; as a shell counts it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except DmnetError as error:
        return _fail(str(error))
    except OSError as error:
        text = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        return _fail(f"{text}{_WAYS_OUT.get(error.errno or 0, '')}")
    except KeyboardInterrupt as error:
        exec("")  # Python ends by SIGINT once an interrupt has passed a text that was executed
        _fail("interrupted; the same command goes on where this one stopped")
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    except Exception as error:  # noqa: BLE001 - a fault of the program; never a page of traceback
        if is_out_of_memory(error):
            reason = printable(str(error))[:300] or "MemoryError"
            return _fail(
                f"not enough memory ({reason}); fewer --workers and smaller settings need less; "
                "what is done is kept"
            )
        return _unexpected(error, arguments)


def _open_streams() -> None:
    """Put the null device where streams were closed: no other file takes their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names may be any bytes


def _above_the_bars() -> AbstractContextManager[None]:
    """Log lines that leave progress bars whole; there are bars in terminals only."""
    if not sys.stderr.isatty():
        return nullcontext()
    from tqdm.contrib.logging import logging_redirect_tqdm  # asyncio: a tenth of a second

    return logging_redirect_tqdm()


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: workers too, and nothing half written stays."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_GO_ON = "and run the same command again: it goes on where it stopped"
_WAYS_OUT = {
    errno.ENOSPC: f"; free some space on that disc {_GO_ON}",
    errno.EDQUOT: f"; your share of that disc is used up; free some {_GO_ON}",
    errno.EROFS: "; that disc is read-only: name another folder (--artifacts, --out)",
    errno.EACCES: "; allow this user to use it (chmod), or name another",
    errno.EMFILE: "; raise the limit (ulimit -n), or use fewer --workers",
}


def _unexpected(error: Exception, arguments: Sequence[str]) -> int:
    """Say in one paragraph what nobody foresaw, and keep the traceback in a file.

    The only broad ``except`` of the project: a user can do nothing with a page of traceback, and
    one that scrolled away is lost to whoever has to mend it. What was finished before stays.
    """
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="dmnet-error-", suffix=".txt", delete=False, errors="backslashreplace"
        ) as file:
            file.write(f"dmnet {shlex.join(arguments)}\n\n{text}")
        details = f"with {file.name}, which holds the details"
    except OSError as why:
        last = traceback.extract_tb(error.__traceback__)[-1]
        details = f"({last.filename}:{last.lineno}; no file could hold the details: {why.strerror})"
    reason = printable(str(error).strip().partition("\n")[0])[:300]
    _fail(
        f"unexpected {type(error).__name__}: {reason}. This is a fault of dmnet; please report it "
        f"{details}. What is done is kept, and the same command goes on from there."
    )
    return 70


def _fail(text: str) -> int:
    print(f"dmnet: {' '.join(text.split())}", file=sys.stderr)
    return 2


@dataclass(frozen=True)
class Tool:
    """A verb that is not a stage: its module has ``add_arguments(parser)`` and ``run(args)``.

    A module with ``SETTINGS``, a dataclass, gets what was set as ``run(args, settings)``.
    """

    module: str
    help: str
    uses_verbs: bool = False
    """``run(main, args)``: it gives further command lines to ``main``."""


TOOLS: dict[str, Tool] = {
    "predict": Tool("predict", "objects in your own pictures, in one command"),
    "info": Tool("info", "what a data set is: format, classes, sizes, problems"),
    "verify": Tool("verify", "whether a run is what it says: every file hashed again"),
    "doctor": Tool("doctor", "versions, devices, extras, models, a short speed test"),
    "evaluate": Tool("evaluate", "score any detections by a named protocol"),
    "compare": Tool("compare", "runs side by side, with differences and intervals"),
    "slice-report": Tool("slice_report", "what each slicer is worth, without a detector"),
    "tune": Tool("tune", "crop, packing and fusion settings by AP per millisecond"),
    "export": Tool("export", "a density network or detector as an ONNX file, checked"),
    "quantise": Tool("quantise", "a trained YOLOv6 with 8-bit weights and activations"),
    "pictures": Tool("pictures", "density, windows and crops of images as a contact sheet"),
    "demo": Tool("demo", "the whole pipeline on scenes it draws itself", True),
    "demo-data": Tool("demo_data", "draw aerial scenes with annotations, from a seed"),
    "push": Tool("push", "send a finished artifact to a bucket, verified"),
    "pull": Tool("pull", "fetch an artifact from a bucket, verified"),
    "data": Tool("data", "download VisDrone, with resume and checks"),
}


def _dispatch(verb: str, rest: list[str]) -> int:
    if verb in TOOLS:
        return _run_tool(verb, rest)
    if verb not in _HELP:
        raise ConfigError(config.unknown(verb, verb, {**_HELP, **TOOLS}).replace("setting", "verb"))
    stage = rest.pop(0) if verb == "merge" and rest and rest[0] in STAGES else ""
    options, settings = stage_parser(verb).parse_known_args(rest)
    if options.help:
        print(_verb_help(verb))
        return 0
    context = context_of(options, settings)
    if verb == "status" and options.data is None:
        from dmnet.pipeline.chain import recorded_data

        context = replace(context, data=recorded_data(context) or context.data)
    run = _VERBS.get(verb, partial(_merge, stage) if verb == "merge" else partial(_stage, verb))
    bad: dict[str, str] = {}
    for split in _splits(context):
        bad |= run(replace(context, split=split))
    return exit_code(bad, options.max_bad)


def _splits(context: Context) -> list[str]:
    """The split asked for; ``all`` means every one that is there.

    Raises:
        MissingInputError: none is there.
    """
    if context.split != "all":
        return [context.split]
    found: dict[str, Dataset] = {}
    missing: MissingInputError | None = None
    for split in (*SPLITS, "valid", "test"):
        try:
            data = context.dataset_of(split)
        except MissingInputError as error:
            missing = error
        else:
            if all(data.entries != other.entries for other in found.values()):
                found.setdefault(data.split, data)
    if not found and missing is not None:
        raise missing
    return list(found)


def _run_tool(verb: str, rest: list[str]) -> int:
    module = importlib.import_module(f"dmnet.pipeline.tools.{TOOLS[verb].module}")
    parser = Parser(prog=f"dmnet {verb}", description=TOOLS[verb].help, allow_abbrev=False)
    module.add_arguments(parser)
    run = partial(module.run, main) if TOOLS[verb].uses_verbs else module.run
    settings: type | None = getattr(module, "SETTINGS", None)
    if settings is None:
        code: int = run(parser.parse_args(rest))
        return code
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    if {"-h", "--help"} & set(rest):
        parser.epilog = "\n".join(["settings:", *_described(settings, "")])
    plain, given = _parted(rest)
    code = run(parser.parse_args(plain), parse_overrides(given))
    return code


def _parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options, and settings ``--section.name value`` (one value each, so that paths may follow)."""
    plain: list[str] = []
    given: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word.startswith("--") and "." in word.partition("=")[0]:
            given += [word] if "=" in word else [word, *itertools.islice(rest, 1)]
        else:
            plain.append(word)
    return plain, given


def _stage(verb: str, context: Context) -> dict[str, str]:
    from dmnet.pipeline.run import execute

    return execute(context, verb, print)


def _merge(stage: str, context: Context) -> dict[str, str]:
    from dmnet.pipeline.merge import merge

    if not stage:
        raise ConfigError(f"merge: name the stage, one of {', '.join(STAGES)}")
    return merge(context, stage, print)


def _all(context: Context) -> dict[str, str]:
    from dmnet.pipeline.run import execute_all

    return execute_all(context, print)


def _status(context: Context) -> dict[str, str]:
    from dmnet.pipeline.status import report

    for text in report(context, ("train", context.split)):
        print(text)
    return {}


_VERBS: dict[str, Callable[[Context], dict[str, str]]] = {"all": _all, "status": _status}


def _overview() -> str:
    verbs = {**_HELP, **{name: tool.help for name, tool in TOOLS.items()}}
    lines = [f"  {name:<18} {text}" for name, text in verbs.items()]
    return "\n".join(
        [
            "usage: python -m dmnet VERB [options] [--section.setting value ...]",
            "",
            "Density-guided object detection in aerial images, in stages that resume.",
            "",
            *lines,
            "",
            "python -m dmnet VERB --help lists the options and settings of one verb.",
            "Every verb takes --follow-links: links may lead out of the folder of the data set.",
        ]
    )


def _verb_help(verb: str) -> str:
    parts = [stage_parser(verb).format_help(), _HELP[verb].capitalize() + "."]
    for stage in STAGES if verb == "all" else [verb] if verb in STAGES else []:
        section = stage.replace("_", "-")
        parts += ["", f"settings of '{section}' (in YAML: {section.replace('-', '_')}: ...):"]
        parts += _described(stage_module(stage).Config, section)
    return "\n".join(parts)


def _described(settings: type, section: str) -> list[str]:
    """Name, default and help of every setting."""
    parts = []
    for name, default, text in describe(settings, section):
        head = f"  --{name.lstrip('-').lstrip('.')} {default}"
        body = textwrap.wrap(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
        parts += [head, *body]
    return parts
