"""Try command lines that are mistakes, and say what came of each: `python -m faults.try_mistakes [WORD ...]` in `tests/`.

Each runs in a fork of one process that has imported everything, so that hundreds take a minute or two. Root may read and
write everything, so the forks give up that right. WORDs select the command lines that contain one of them.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

SECONDS = 120  # after which a command is killed
CPU_SECONDS = 20
MEMORY = 2**35  # bytes of address space, so that what asks for petabytes fails here and not on the machine
IMPORTS = (
    *(f"hyperrecon_jax.commands.{name}" for name in ("train", "evaluate", "evaluate_acquisitions", "compare", "choose")),
    *("hyperrecon_jax.commands.export", "hyperrecon_jax.commands.prepare", "hyperrecon_jax.data.builder"),
    *("hyperrecon_jax.explorer.page", "hyperrecon_jax.studies.study", "hyperrecon_jax.studies.paper.report"),
    *("hyperrecon_jax.studies.real_people", "hyperrecon_jax.benchmarks", "hyperrecon_jax.cli.main", "matplotlib.pyplot"),
    *("hyperrecon_jax.runtime.connection", "ml_collections.config_flags", "orbax.checkpoint", "tensorboardX"),
    *("hyperrecon_jax.studies.baselines", "hyperrecon_jax.studies.dhs", "hyperrecon_jax.studies.improvements"),
)


class Outcome(NamedTuple):
    """How a command ended."""

    status: int  # negative: a signal
    stdout: str
    stderr: str
    seconds: float  # of the processor
    left: list[str]  # paths that are new, gone or changed


def try_all(lines, *, imports=IMPORTS, has_runs=True):
    """The outcome of each command line, such as "train --config gone.py".

    Args:
        lines: the command lines.
        imports: names of the modules that all of them share.
        has_runs: whether they need the runs of the folder.
    """
    from faults import world  # here, because it takes seconds to import

    for name in imports:
        importlib.import_module(name)
    scratch = Path(tempfile.mkdtemp(prefix="mistakes-"))
    scratch.chmod(0o755)
    folder, home = scratch / "world", scratch / "home"
    try:
        if not (child := os.fork()):  # in a process of its own: no computation of JAX may come before a fork
            world.build(folder, has_runs=has_runs)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "the folder cannot be made"
        home.mkdir()
        before = world.snapshot(folder)
        for line in lines:
            outcome = _try(shlex.split(line), folder, home, scratch)
            after = world.snapshot(folder)
            left = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
            before = after
            yield outcome._replace(left=left)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _try(args, folder, home, scratch):
    logs = [scratch / name for name in ("stdout", "stderr")]
    child = os.fork()
    if not child:
        _run(args, folder, home, logs)
    _, status, usage = os.wait4(child, 0)
    texts = [log.read_text(errors="replace") for log in logs]
    return Outcome(os.waitstatus_to_exitcode(status), *texts, usage.ru_utime + usage.ru_stime, [])


def _run(args, folder, home, logs):
    """In the child: run the command and end."""
    for stream, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.setpgid(0, 0)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    drop_capabilities()
    os.environ |= {"HOME": str(home), "HYPERRECON_JAX_CACHE": str(home / "cache")}
    os.chdir(folder)
    sys.argv = ["/env/bin/hyperrecon", *args]
    sys.dont_write_bytecode = True
    status = 1
    try:
        from hyperrecon_jax.cli.main import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # an orderly end would touch, and so copy, all memory


def drop_capabilities():
    """Give up the rights by which root reads, writes and enters everything; others have none, and macOS knows none."""
    with contextlib.suppress(OSError, AttributeError):
        version_3, this_process = 0x20080522, 0
        header = (ctypes.c_uint32 * 2)(version_3, this_process)
        ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())


def faults(outcome, names):
    """What is wrong with the outcome of a mistake; `names` is what its sentence must contain."""
    lines = outcome.stderr.splitlines()
    return [
        *([f"status {outcome.status}"] if outcome.status != 2 else []),
        *(["no single sentence"] if len(lines) != 1 or not lines[0].startswith("error: ") else []),
        *(["prints"] if outcome.stdout not in ("", "hello\nworld\n") else []),  # what a config file prints is its own
        *([f"does not name {names!r}"] if names not in outcome.stderr else []),
        *(["control characters"] if lines and not lines[0].isprintable() else []),
        *(["long"] if len(outcome.stderr) > 1000 else []),
        *([f"leaves {', '.join(outcome.left)}"] if outcome.left else []),
        *([f"works for {outcome.seconds:.1f} s"] if outcome.seconds > 10 else []),
    ]


if __name__ == "__main__":
    from faults.mistakes import MISTAKES

    if sys.argv[1:2] == ["--json"]:
        lines, options = json.load(sys.stdin)
        for outcome in try_all(lines, **options):
            print(json.dumps(outcome), flush=True)
    else:
        chosen = {line: names for line, names in MISTAKES.items() if all(word in line for word in sys.argv[1:])}
        start, wrong = time.monotonic(), 0
        for (line, names), outcome in zip(chosen.items(), try_all(chosen), strict=True):
            problems = faults(outcome, names)
            wrong += bool(problems)
            print(f"{'; '.join(problems) or 'right'} ({outcome.seconds:.1f} s): {line[:200]!r}", flush=True)
            lines = (outcome.stdout + outcome.stderr).splitlines()[-4:]
            print("".join(f"    {text[:300]}\n" for text in lines), flush=True)
        print(f"{len(chosen)} mistakes, {wrong} handled wrongly, {time.monotonic() - start:.0f} s")
