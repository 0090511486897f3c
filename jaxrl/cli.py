"""The command line: `jaxrl run|eval|sample|score|verify|generate|serve-env`. Heavy imports come late."""

import argparse
import io
import logging
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from jaxrl import __version__
from jaxrl.cluster import find_place, refuse_several
from jaxrl.errors import InputError, ProcessLost, exit_code
from jaxrl.files.disk import silence
from jaxrl.files.lock import locked
from jaxrl.interrupt import Interrupted, ends_as_ctrl_c

Commands = Any  # what `add_subparsers` returns: argparse has no public name for it


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
      The exit code: 0 done; 2 bad input, or a disk that takes no more (one message on stderr); 75 where
      another process of the run was lost, or a bucket is away, and the same command goes on; 128 + n where
      signal n stopped it (130 Ctrl-C, 143 SIGTERM, 129 SIGHUP), for `run` after the state was saved.
    """
    _prepare_streams()
    arguments = _parse_or_leave(argv)
    try:
        with ends_as_ctrl_c():
            arguments.function(arguments)
    except (InputError, ProcessLost) as error:
        _say(f"error: {error}", sys.stderr)
        return exit_code(error)
    except Interrupted as interrupted:
        _say("stopped; the state is saved, and the same command goes on from it", sys.stderr)
        return 128 + interrupted.number
    except KeyboardInterrupt as interrupt:
        remains = (
            "the same command goes on from the last checkpoint"
            if arguments.function is _run
            else "no file was written"
        )
        remains = "; ".join(getattr(interrupt, "__notes__", ())) or remains
        _say(f"stopped at once; {remains}", sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    return 0


def _parse_or_leave(argv: list[str] | None) -> argparse.Namespace:
    try:
        return parse(argv)
    except SystemExit:  # argparse has answered by itself
        for stream in (sys.stdout, sys.stderr):
            _say("", stream, end="")
        raise


def _prepare_streams() -> None:
    # on stderr, before a library brings its own form
    logging.basicConfig(format="%(levelname)s: %(message)s")
    # one that the caller has closed would be the number of the next file that is opened, and
    for number in range(3):
        try:  # what libraries print would be written into that file
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal without UTF-8 shows less, and stops nothing
            stream.reconfigure(errors="backslashreplace")


def _say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print to stdout, or to another stream, and see it out: the interpreter's end is no place to find that
    it cannot be.

    A reader that has left (`| head`) is no error, and nobody is left to be told where stderr fails.

    Raises:
      InputError: stdout goes to a disk that does not take it.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError as error:
        silence(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise InputError(f"the standard output cannot be written: {error.strerror}") from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; `key=value` may stand among the flags too, where argparse alone takes positionals from
    one place only.
    """
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    late = [word for word in rest if "=" in word and not word.startswith("-")]
    unknown = [word for word in rest if word not in late or "overrides" not in arguments]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxrl",
        description="Post-training of language models in JAX. `jaxrl COMMAND --help` has every flag.",
    )
    parser.add_argument("--version", action="version", version=f"jaxrl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_run, _add_eval, _add_sample, _add_score, _add_verify, _add_generate, _add_serve_env):
        add(commands)
    return parser


def _model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a Hugging Face model directory (or hub name)"
    )
    parser.add_argument("--adapter", metavar="DIR", help="a PEFT LoRA adapter to lay over it")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the weights and the arithmetic (default float32)",
    )


def _overrides(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=text)


def _date_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--date",
        type=_day,
        metavar="YYYY-MM-DD",
        help="what a chat template that asks for the date is told (default today)",
    )


def _day(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; give one as 2025-12-31") from None


def _add_run(commands: Commands) -> None:
    parser = commands.add_parser(
        "run",
        help="run the experiment of a config file, or go on with it",
        description=(
            "Run the experiment of a config file. It leaves what it makes in runs/<name>/; Ctrl-C saves and "
            "stops, and the same command goes on from there."
        ),
    )
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="a YAML file, for example configs/quickstart.yaml"
    )
    _overrides(
        parser,
        "keys to change, stages by number from 0: optim.learning_rate=1e-4 stages.1.steps=10 name=other",
    )
    parser.set_defaults(function=_run)


def _run(arguments: argparse.Namespace) -> None:
    from jaxrl.config.file import load_config
    from jaxrl.files.mirror import mirrored

    config = load_config(arguments.config, arguments.overrides)
    if find_place(config.distributed) is not None:
        from jaxrl.commands.run import run

        run(config)
        return
    # before jax, whose import takes seconds: who came first is first
    with locked(config.folder) as check_lock, mirrored(config.folder, config.url) as mirror:
        from jaxrl.commands.run import run_locked

        run_locked(config, check_lock, mirror)


def _add_eval(commands: Commands) -> None:
    parser = commands.add_parser(
        "eval", help="evaluate a model directory on the task of a config's last eval stage"
    )
    _model_flags(parser)
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="CONFIG",
        help="its last eval stage says what is asked, and how",
    )
    parser.add_argument("--out", type=Path, metavar="EVAL.json", help="write the rows here too")
    _date_flag(parser)
    _overrides(parser, "for example stages.4.limit=100")
    parser.set_defaults(function=_eval)


def _eval(arguments: argparse.Namespace) -> None:
    refuse_several("jaxrl eval")
    from jaxrl.config.experiment import EvalStage
    from jaxrl.config.file import load_config
    from jaxrl.config.shared import ModelSection

    config = load_config(arguments.config, arguments.overrides)
    stages = [stage for stage in config.stages if isinstance(stage, EvalStage)]
    if not stages:
        raise InputError(
            f"{arguments.config} has no stage of kind eval; add one to say what is evaluated and how"
        )
    from jaxrl.commands.eval import evaluate_model
    from jaxrl.device.compilations import set_up_jax
    from jaxrl.device.gpu import set_up_gpus
    from jaxrl.device.mesh import make_mesh
    from jaxrl.files.jsonl import check_out
    from jaxrl.policy.load import load_policy
    from jaxrl.track.evaluations import render_table, save_rows
    from jaxrl.train.layout import choose_mesh

    if arguments.out is not None:
        check_out(arguments.out)
    set_up_jax(config.compilation_cache)
    set_up_gpus(config.gpu)
    model = ModelSection(path=arguments.model, dtype=arguments.dtype)
    mesh = make_mesh(choose_mesh(config.mesh, model, stages[-1:], vocab_size=0)[0])
    weights = load_policy(arguments.model, arguments.adapter, arguments.dtype, mesh)
    rows = evaluate_model(
        weights, arguments.model, stages[-1], config.verify, config.seed, mesh, arguments.date
    )
    try:
        if arguments.out is not None:
            save_rows(arguments.out, rows)
    finally:  # of an hour's work one of the two remains, whichever cannot be written
        _say(render_table(rows))


def _add_sample(commands: Commands) -> None:
    parser = commands.add_parser(
        "sample",
        help="complete prompts with a model directory",
        description=(
            "Complete prompts. `logprobs` in the result are the model's at the temperature (at 1 where it is "
            "0), over its whole vocabulary, before top-k, top-p and min-p: at temperature 1 what `jaxrl "
            "score` gives. Ids that the tokenizer does not have are never drawn."
        ),
    )
    _model_flags(parser)
    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="IN.jsonl",
        help="lines with `prompt`, `messages` or `prompt_ids`",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default 1)")
    parser.add_argument("--top-k", type=int, default=0, help="0 is off (default)")
    parser.add_argument("--top-p", type=float, default=1.0, help="1 is off (default)")
    parser.add_argument("--min-p", type=float, default=0.0, help="0 is off (default)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="(default 256)")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a completion at this text; may be repeated",
    )
    parser.add_argument(
        "--slots", type=int, help="rows decoded together at most (default: as many as the memory holds)"
    )
    _date_flag(parser)
    parser.set_defaults(function=_sample)


def _sample(arguments: argparse.Namespace) -> None:
    from jaxrl.config.file import make_section
    from jaxrl.config.shared import SampleSection

    sample = make_section(
        SampleSection,
        "sample",
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        max_new_tokens=arguments.max_new_tokens,
        stop=arguments.stop,
        slots=arguments.slots,
        window=min(32, max(1, arguments.max_new_tokens)),
        max_prompt_tokens=1 << 30,  # the model's own limit is the one that counts
    )
    if not 0 <= arguments.seed < 2**32:
        raise InputError(f"--seed {arguments.seed} is not between 0 and 2^32 - 1; choose another")
    mesh, weights = _open_model(arguments)
    from jaxrl.commands.sample import sample_file

    count = sample_file(
        weights,
        arguments.model,
        arguments.prompts,
        arguments.out,
        sample,
        arguments.seed,
        mesh,
        arguments.date,
    )
    _say(f"{count} completions in {arguments.out}")


def _add_score(commands: Commands) -> None:
    parser = commands.add_parser("score", help="logprobs of given tokens")
    _model_flags(parser)
    parser.add_argument(
        "--tokens",
        "--prompts",
        "--input",
        dest="tokens",
        type=Path,
        required=True,
        metavar="IN.jsonl",
        help="lines with `tokens`, a list of ids",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl")
    parser.set_defaults(function=_score)


def _score(arguments: argparse.Namespace) -> None:
    mesh, weights = _open_model(arguments)
    from jaxrl.commands.score import score_file

    _say(f"{score_file(weights, arguments.tokens, arguments.out, mesh)} lines scored in {arguments.out}")


def _add_verify(commands: Commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="judge the completions in a file with a task's verifier, or play a world's episodes again; no "
        "model, no accelerator",
    )
    parser.add_argument("task", metavar="TASK", help="a task's or world's name; a wrong one lists all")
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="IN.jsonl",
        help="per line a problem's fields and `completion`, or an episode as `generate` writes it",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="OUT.jsonl",
        help="the lines with `reward`, `correct`, ... added",
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="seconds for one completion (default 10)"
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="pass over lines that are no record of the task, and count them",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the rows that a stopped command has left in OUT.jsonl",
    )
    parser.add_argument(
        "--pass-env",
        action="append",
        default=[],
        metavar="NAME",
        help="a secret variable that the verifier sees; may be repeated",
    )
    _overrides(parser, "keys of the task's or world's section")
    parser.set_defaults(function=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    from jaxrl.commands.verify import verify_file

    workers = arguments.workers if arguments.workers is not None else len(os.sched_getaffinity(0))
    tally = verify_file(
        arguments.task,
        arguments.overrides,
        arguments.input,
        arguments.out,
        workers,
        arguments.timeout,
        pass_env=arguments.pass_env,
        skip_bad=arguments.skip_bad,
        resume=arguments.resume,
    )
    _say(f"{tally} in {arguments.out}")


def _add_generate(commands: Commands) -> None:
    parser = commands.add_parser("generate", help="write fresh problems of a task, or episodes of a world")
    parser.add_argument("task", metavar="TASK", help="a task's or world's name; a wrong one lists all")
    parser.add_argument("--n", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl")
    _overrides(
        parser, "keys of the task's or world's section; of a world also policy=, format=agenttraj, split="
    )
    parser.set_defaults(function=_generate)


def _generate(arguments: argparse.Namespace) -> None:
    from jaxrl.commands.generate import generate_file

    count = generate_file(arguments.task, arguments.overrides, arguments.n, arguments.seed, arguments.out)
    _say(f"{count} problems in {arguments.out}")


def _add_serve_env(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve-env",
        help="serve a world in AgentGym's HTTP protocol",
        description=(
            "Serve a world's episodes to other programs in AgentGym's HTTP protocol, until Ctrl-C. There is "
            "no password: it listens on this machine alone unless --host says otherwise."
        ),
    )
    parser.add_argument("env", metavar="ENV", help="a world's name; a wrong one lists all")
    parser.add_argument("--host", default="127.0.0.1", help="(default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=36001, help="0 takes a free one (default 36001)")
    parser.add_argument("--split", default="train", help="whose problems are served (default train)")
    _overrides(parser, "keys of the world's section")
    parser.set_defaults(function=_serve_env)


def _serve_env(arguments: argparse.Namespace) -> None:
    from jaxrl.commands.serve_env import make_server

    server = make_server(arguments.env, arguments.overrides, arguments.split, arguments.host, arguments.port)
    with server:
        _say(f"{arguments.env} at http://{arguments.host}:{server.server_port}")
        try:
            server.serve_forever()
        except KeyboardInterrupt as stop:
            stop.add_note("the episodes that were open are gone")
            raise


def _open_model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The mesh, and the weights on it."""
    refuse_several("this command")
    from jaxrl.config.experiment import Config
    from jaxrl.config.shared import GPUSection, MeshSection
    from jaxrl.device.compilations import set_up_jax
    from jaxrl.device.gpu import set_up_gpus
    from jaxrl.device.mesh import make_mesh
    from jaxrl.files.jsonl import check_out
    from jaxrl.policy.load import load_policy

    check_out(arguments.out)
    set_up_jax(Config.model_fields["compilation_cache"].default)
    set_up_gpus(GPUSection())
    mesh = make_mesh(MeshSection())
    return mesh, load_policy(arguments.model, arguments.adapter, arguments.dtype, mesh)


if __name__ == "__main__":
    sys.exit(main())
