"""Frozen dataclass <- recipe <- flags or keyword arguments; user errors in one line with exit code 2.

A config class and the module that holds it stay light: heavy imports belong into the function
handed to `run`, which is called after parsing, so that ``--help`` answers at once.
"""

import contextlib
import dataclasses
import difflib
import errno
import io
import itertools
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

try:
    import tyro
except ModuleNotFoundError:
    print(
        "error: this Python lacks orchard's packages; run `make install`, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

from orchard import heartbeat, software
from orchard.cli import recipes, signals
from orchard.errors import UserError
from orchard.files import checked_json

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What the system says of a disk that is full, or read-only."""
ROOM = "give a smaller --batch_size; docs/gpus.md has what else saves memory"
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Section = Annotated[tuple[str, ...], "section"]
"""Several NAME=VALUE; a recipe writes them as a section of names with a value or a list of values each."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """A group of options: one section of ``--help``. A command's config inherits from the groups it has, so a
    function may ask for the one group that it needs.
    """

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""


@dataclass(frozen=True, kw_only=True)
class Command(Options):
    """What every command has."""

    GONE: ClassVar[Mapping[str, str]] = {}
    """Options of earlier versions: name -> what to use instead."""

    config: Path | None = None
    """Recipe: a YAML file of these same options; flags win over it."""
    dry_run: bool = False
    """Print the resolved plan and stop."""


@dataclass(frozen=True, kw_only=True)
class Common(Command):
    """What every command has that computes with images."""

    data: str = "fruit"
    """The real set: a folder, a dataset on the Hub, `fruit` (the Kaggle set) or `demo` (rendered)."""
    seed: int = 0
    """Seed of every random choice, 0 or more."""
    precision: Precision = "auto"
    """Arithmetic of the networks; auto is bf16 where the device has it, fp16 on Volta and Turing, else
    fp32."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        check(0 <= self.seed < 2**32, f"--seed {self.seed}: give 0 to {2**32 - 1}")
        super().require_valid()


@dataclass(frozen=True, kw_only=True)
class Hub(Options):
    """Sharing on the Hugging Face Hub."""

    push_to_hub: str = ""
    """Repository on the Hugging Face Hub to upload the result to, as NAME or OWNER/NAME."""
    private: bool = False
    """Make that repository private when it is new."""


Config = TypeVar("Config", bound=Command)


def run(config_type: type[Config], main: Callable[[Config], None], prog: str) -> None:
    """Parse the command line and call ``main``.

    Exit code 2 after a `UserError`, 130 after Ctrl-C, 143 after SIGTERM, 75 where another process is lost.
    """
    with one_line():
        config = parse(config_type, sys.argv[1:], prog)
        software.commit()  # as long as it is the code that was started
        main(config)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """End the process in one line, with the code that `run` names, where a user or the system stopped it."""
    signals.on_terminate()
    with signals.closing():
        try:
            signals.end_with_launcher()
            yield
            heartbeat.leave()
        except UserError as error:
            _refuse(str(error), error.code)
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            place = error.filename or "standard output or a file"
            _refuse(f"{place}: cannot be written ({error.strerror}); make room there")
        except (MemoryError, RuntimeError) as error:
            if heartbeat.explains(error):
                signals.end_without(heartbeat.lost())
            if not _is_of_memory(error):
                raise
            _refuse(
                f"out of memory ({(str(error).strip() or 'of this machine').splitlines()[0][:160]}); {ROOM}"
            )
        except (KeyboardInterrupt, signals.Terminated) as stop:
            print("stopped; what was finished is kept", file=sys.stderr)
            if heartbeat.lost():
                signals.leave(signals.code(stop))
            raise SystemExit(signals.code(stop)) from None


def _is_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory is full, or this machine's; torch is not imported to know."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return not kinds.isdisjoint(("MemoryError", "OutOfMemoryError")) or "DefaultCPUAllocator" in str(error)


def _refuse(line: str, code: int = UserError.code) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(code)


def resolve(
    config_type: type[Config], config: Config | Path | str | None, options: Mapping[str, Any], prog: str
) -> Config:
    """What a call from Python asks for, checked by the parser of the command line.

    Args:
        config: the options, or the path of a recipe.
        options: those that win over ``config``, by name.

    Raises:
        UserError: as `parse`.
    """
    if isinstance(config, config_type):
        options = {**_given(config), "dry_run": config.dry_run, **options}
    elif config is not None:
        kind = type(config).__name__
        check(isinstance(config, str | Path), f"{kind}: give a {config_type.__name__} or a recipe's path")
        options = {"config": config, **options}
    plain = {name: _plain(value) for name, value in options.items()}
    found = parse(config_type, _flags(config_type, plain), prog)
    software.commit()  # as long as it is the code that was started
    return found


def command(prog: str, config: Command) -> str:
    """The command line that gives this config."""
    return shlex.join([*prog.split(), *_flags(type(config), _given(config))])


def _given(config: Command) -> dict[str, Any]:
    """The options that are not at their defaults, as `describe`."""
    defaults = describe(type(config)())
    return {name: value for name, value in describe(config).items() if value != defaults[name]}


def parse(config_type: type[Config], arguments: Sequence[str], prog: str) -> Config:
    """Resolve ``arguments`` (recipe first, then flags) into a config, or raise `UserError`."""
    _require_current(config_type, [word for word in arguments if word.startswith("--")])
    _require_once(config_type, arguments)
    path = _recipe_path(arguments)
    from_recipe = recipe_arguments(config_type, path)
    try:
        return _parsed(config_type, [*from_recipe, *arguments], prog)
    except UserError:
        if path is not None:
            _blame_recipe(config_type, from_recipe, path, prog)
        raise


def _require_current(config_type: type[Command], given: Sequence[str], where: str = "") -> None:
    """Raise `UserError` for an option that an earlier version had, with what to use instead."""
    for word in given:
        name = word.lstrip("-").partition("=")[0].replace("-", "_").removeprefix("no_")
        check(name not in config_type.GONE, f"{where}{word}: was removed; {config_type.GONE.get(name)}")


def _require_once(config_type: type[Command], arguments: Sequence[str]) -> None:
    """Raise `UserError` for a list that is given twice, of which the parser would take the last one."""
    flags = [word.partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")]
    for name, kind in get_type_hints(config_type, include_extras=True).items():
        twice = flags.count(f"__{name}") > 1 and _takes_several(kind)
        check(not twice, f"--{name} is given twice; write all its values after one --{name}")


def _blame_recipe(config_type: type[Config], from_recipe: list[str], path: Path, prog: str) -> None:
    """Raise `UserError` with the recipe's name when it does not parse even without the flags."""
    try:
        _parsed(config_type, from_recipe, prog)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from None


def _parsed(config_type: type[Config], arguments: Sequence[str], prog: str) -> Config:
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            groups = tyro.cli(
                _sections(config_type),
                prog=prog,
                description=config_type.__doc__,
                args=arguments,
                use_underscores=True,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(messages.getvalue(), prog)) from None
    parts = (getattr(groups, group.name) for group in dataclasses.fields(groups))
    values = {field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part)}
    return config_type(**values)


def _sections(config_type: type[Command]) -> type[Any]:
    """A dataclass with one field a group of options, which the parser gives a heading."""
    kinds = [kind for kind in config_type.__mro__ if kind.__bases__ in ((Options,), (Command,))]
    if Common in kinds:  # which has it in itself
        kinds.remove(Command)
    groups = [(_words(kind), kind, dataclasses.field(default_factory=kind)) for kind in kinds]
    return dataclasses.make_dataclass(config_type.__name__, groups, kw_only=True)


def _words(kind: type) -> str:
    return re.sub("(?<!^)([A-Z])", r"_\1", kind.__name__).lower()


def _recipe_path(arguments: Sequence[str]) -> Path | None:
    found = [word.partition("=")[2] for word in arguments if word.startswith("--config=")]
    found += [value for flag, value in itertools.pairwise(arguments) if flag == "--config"]
    if len(found) > 1:
        raise UserError(f"--config {' '.join(found)}: only one recipe per run; merge them into one file")
    return Path(found[0]) if found else None


def recipe_arguments(config_type: type[Command], path: Path | None) -> list[str]:
    """The flags that a recipe stands for, in its own order."""
    if path is None:
        return []
    recipe = recipes.read(path, get_type_hints(config_type), config_type.__module__.partition(".")[0])
    where = f"--config {path}"
    require_distinct(where, [key.replace("-", "_") for key in recipe])
    check("config" not in recipe, f"{where}: config: a recipe cannot name another one; copy its lines here")
    return _flags(config_type, recipe, f"{where}: ")


def _flags(config_type: type[Command], options: Mapping[str, Any], where: str = "") -> list[str]:
    """The flags that stand for options by name; ``where`` they come from is said of a wrong one."""
    kinds = get_type_hints(config_type, include_extras=True)
    _require_current(config_type, list(options), where)
    words = []
    for key, given in options.items():
        name = key.replace("-", "_")
        if name not in kinds:
            close = difflib.get_close_matches(name, kinds, 1)
            hint = f". Perhaps you meant --{close[0]}" if close else ""
            raise UserError(f"{where}{key}: not an option of this command, --{name}{hint}")
        value = _pairs(given) if kinds[name] == Section else given
        if problem := _problem(value, kinds[name]):
            raise UserError(f"{where}{key}: {problem}")
        words.extend(_flag(name, value, kinds.get(name) is bool))
    return words


def _pairs(section: Any) -> Any:
    """``{"light": ["dim", "bright"]}`` -> ``["light=dim", "light=bright"]``; anything else stays as it is."""
    if not isinstance(section, dict):
        return section
    lists = {name: values if isinstance(values, list) else [values] for name, values in section.items()}
    written = [(name, value) for name, values in lists.items() for value in values]
    if not all(isinstance(value, recipes.Scalar | None) for _, value in written):
        return section
    return [None if value is None else f"{name}={value}" for name, value in written]


def _problem(value: Any, kind: Any) -> str | None:
    """What the parser could not see in a value, since it gets text."""
    items = value if isinstance(value, list) else [value]
    if isinstance(value, Set):
        return f"{checked_json.shown(sorted(map(str, value)))} is a set, which has no order; give a list"
    if not all(isinstance(item, recipes.Scalar | None) for item in items):
        return f"{checked_json.shown(value)} is nested; give one value, or a list of values"
    if None in items and type(None) not in get_args(kind):
        return "has no value; give one or leave it out"
    if kind is bool and not isinstance(value, bool):
        return f"{str(value)[: checked_json.SHOWN]} is neither true nor false"
    if isinstance(value, list) and not _takes_several(kind):
        return f"{checked_json.shown(value)} is a list; give one value"
    if len(items) > 1 and (dashed := [item for item in items if str(item).startswith("-")]):
        return f"{dashed[0]} begins with a dash, as options do; give it alone or write it otherwise"
    return None


def _takes_several(kind: Any) -> bool:
    return kind == Section or get_origin(kind) is tuple


def _flag(name: str, value: Any, boolean: bool) -> list[str]:
    if boolean:
        return [f"--{name}" if value else f"--no_{name}"]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        return [f"--{name}", *(str(item) for item in value)]
    # Apart, the parser finds the nearest name; joined, a value may begin with a dash.
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]


def _one_line(box: str, prog: str) -> str:
    """The parser's boxed message as one line: what is wrong, the nearest name, where help is."""
    kept: list[str] = []
    # Its title ends with the first rule; rules are dashes where the output takes no other characters.
    for raw in re.split(r"(?:─|-){4,}╮?[ ]*\n", box, maxsplit=1)[-1].splitlines():
        line = " ".join(re.sub(r"[╰╯│]|(?:─|-){4,}", " ", raw).split())
        if not line:
            continue
        if line.startswith(("Argument helptext", "For full help", "Got errors:")):
            break
        kept.append(line)
        if len(kept) > 1 and kept[-2].startswith("Perhaps you meant"):
            break
    return f"{' '.join(kept).removesuffix('.')}; see {prog} --help"


def describe(config: Command) -> dict[str, Any]:
    """The config as plain JSON values, for plans, records and provenance."""
    return {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in ("config", "dry_run")
    }


def _plain(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0:  # a number of numpy
        return value.item()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Set):  # sets have no order
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def split_list(values: Sequence[str]) -> list[str]:
    """``("a,b", "c")`` -> ``["a", "b", "c"]``, for the options that take commas too."""
    return [part for value in values for part in value.split(",") if part]


def require_distinct(flag: str, values: Sequence[str]) -> None:
    """Raise `UserError` when a list names something twice."""
    twice = sorted({value for value in values if values.count(value) > 1})
    check(not twice, f"{flag}: {', '.join(twice)} is given twice")


def check(condition: bool, message: str) -> None:
    """Raise `UserError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise UserError(message)
