"""One command line made from the verbs: arguments and a recipe become a verb's options.

cyclopts parses, converts, draws the help and writes completion scripts. Of the libraries that derive a command from
annotated fields, it, tyro and jsonargparse all import in under 0.1 s; cyclopts alone keeps the source of every value
(so that a wrong one is reported with the recipe's file and line) and completes for bash, zsh and fish.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import CoercionError, UnusedCliTokensError
from rich.console import Console

from graft import __version__, catalogue, verbs
from graft.errors import BadInput
from graft.options import completion, contestants, recipe
from graft.options.fields import Field, fields_of, is_list, type_name
from graft.options.given import Given
from graft.options.settings import Setting, choose, settings_of, split

_HELP = """Adapt a language model to your task the cheapest way that works, and prove it.

A recipe holds a verb's options in YAML; what stands on the command line wins. More: graft VERB --help."""
_OPTIONS, _EVERYWHERE = Group("Options", sort_key=1), Group("Everywhere", sort_key=9)
_COMMON = (
    Field("json", bool, "print the result as JSON", False),
    Field("debug", bool, "show where an unexpected error came from (also: GRAFT_DEBUG=1)", False),
)


@dataclass(frozen=True)
class Call:
    """What the user asked for: a verb, the options given, and whether to print JSON."""

    verb: str
    options: dict[str, Any]
    json: bool


def parse(arguments: Sequence[str], console: Console | None = None) -> Call | None:
    """Turn the arguments into a call; None when help, the version or completion was asked for and given.

    Help goes to `console`. Raises BadInput for what cannot be understood.
    """
    verb, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if verb in catalogue.verbs():
        entries = recipe.read(Path(rest.pop(0))) if rest and rest[0].endswith((".yaml", ".yml")) else []
        app = _command_line(*_command(verb, rest, entries))
    else:
        app = _command_line()
    words = [*arguments[:1], *rest]
    try:
        return app(words, console=console, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise BadInput(_said(error)) from error


def _command(verb: str, arguments: list[str], entries: list[recipe.Entry]) -> tuple[App, Given]:
    """Build one verb's command, with the settings of the methods or contestants that the user chooses."""
    fields = _fields(verb)
    # Only help does without the settings of what is chosen by default: they would cost it an import of torch.
    helped = bool({"--help", "-h"} & set(arguments))
    defaults = {} if helped else {field.name: field.default for field in fields}
    if _takes_contestants(verb):
        asked, entries = contestants.choose(arguments, entries, defaults.get(contestants.OPTION, ()))
        app = _subcommand(verb, fields, contestants.settings_of(asked), lambda chosen: {"settings": chosen})
    else:
        method, entries = choose(arguments, entries, first=fields[0].name == "method")
        method = method or defaults.get("method")
        names = split(method) if method else []
        app = _subcommand(verb, fields, settings_of(names, [field.name for field in fields]), _building(names))
    return app, Given(entries, [field.name for field in _COMMON])


def _fields(verb: str) -> list[Field]:
    """The options of a verb. Settings of contestants are spelled out on the command line, as options of each."""
    fields = fields_of(verbs.module(verb).Options)
    return [field for field in fields if field.name != "settings"] if _takes_contestants(verb) else fields


def _takes_contestants(verb: str) -> bool:
    """Whether a verb takes contestants and settings of theirs."""
    return {contestants.OPTION, "settings"} <= {field.name for field in fields_of(verbs.module(verb).Options)}


def _building(methods: list[str]) -> Callable[[dict[str, dict[str, Any]]], dict[str, Any]]:
    """What makes a method of its settings, where there are any."""

    def build(chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
        if not chosen:
            return {}
        from graft.method import named

        return {"method": named("+".join(methods), chosen)}

    return build


def _subcommand(
    verb: str, fields: list[Field], owned: list[Setting], build: Callable[[dict[str, dict[str, Any]]], dict[str, Any]]
) -> App:
    """Give a verb the signature that its options and `owned` settings spell; calling it makes the Call.

    build: options made of the settings that were given, by owner.
    """
    settings = [*(Setting(field, (field.name,)) for field in fields), *owned]
    parameters = [_parameter(each, _group(each.owner), each.field is fields[0]) for each in settings]
    parameters += [_parameter(Setting(field, (field.name,)), _EVERYWHERE) for field in _COMMON]
    signature = inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))

    def call(*values: Any, **keywords: Any) -> Call:
        given = signature.bind(*values, **keywords).arguments
        chosen: dict[str, dict[str, Any]] = {"": {}}
        for each in settings:
            if each.keyword in given:
                chosen.setdefault(each.owner, {})[each.field.name] = given[each.keyword]
        options = chosen.pop("")
        return Call(verb, options | build(chosen), given.get("json", False))

    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = inspect.getdoc(verbs.module(verb).Options)
    app = App(name=verb, usage=f"Usage: graft {verb} [RECIPE.yaml]{positional(fields)} [OPTIONS]")
    app.default(call)
    return app


def positional(fields: Sequence[Field]) -> str:
    """The options without a default and the first, as they may be given: by position, up to one that takes several.

    What stands behind such a one would be taken for more of it, and is given by name.
    """
    shown = [field for field in fields if field.required] if fields and fields[0].required else fields[:1]
    several = [is_list(field.type) for field in shown]
    words = []
    for at, field in enumerate(shown):
        value = field.name.upper() + "..." * several[at]
        name = f"--{field.name.replace('_', '-')} " if any(several[:at]) else ""
        words.append(f" {name}{value}" if field.required else f" [{value}]")
    return "".join(words)


def _group(owner: str) -> Group:
    return Group(f"Settings of {owner}", sort_key=5) if owner else _OPTIONS


def _parameter(setting: Setting, group: Group, first: bool = False) -> inspect.Parameter:
    field, kind, said, converter = setting.field, setting.field.type, setting.field.help, None
    if setting.keyword == "method":
        # Methods are choices in help and completion; a sum is taken as well, and `split` has checked it.
        said += "; --method NAME --help shows its settings"
        kind, converter = Literal[tuple(catalogue.methods())], lambda _, tokens: tokens[0].value
    elif kind == dict[str, Any]:
        # What has no type here means what it means in YAML: 256 is a number, true a truth value.
        plain = Parameter(converter=lambda _, tokens: yaml.safe_load(tokens[0].value))
        kind = dict[str, Annotated[Any, plain]]
    shown = Parameter(
        name=[f"--{name if '.' in name else name.replace('_', '-')}" for name in setting.names],
        help=said,
        group=group,
        converter=converter,
        show_default=field.default is not False and field.default not in (None, (), [], {}, ""),
        consume_multiple=True if is_list(kind) else None,
        negative=() if group is _EVERYWHERE or is_list(kind) else None,
    )
    return inspect.Parameter(
        setting.keyword,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if field.required or first else inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, shown],
        default=inspect.Parameter.empty if field.required else field.default,
    )


def _command_line(command: App | None = None, given: Given | None = None) -> App:
    """Build the command line around one verb; the others stand in it with their name and summary only."""
    app = App(name="graft", help=_HELP, usage="Usage: graft VERB [RECIPE.yaml] [OPTIONS]", version=__version__)
    app.config = (given,) if given else ()
    for entry in catalogue.verbs().values():
        app.command(command if command and command.name[0] == entry.name else App(name=entry.name, help=entry.summary))
    completion.add(app, _everything)
    return app


def _everything() -> list[App]:
    """Every verb with all its options and the settings of every method, for completion."""
    commands = []
    for verb in catalogue.verbs():
        fields = _fields(verb)
        methods = list(catalogue.methods()) if any(field.name == "method" for field in fields) else []
        owned = settings_of(methods, [field.name for field in fields])
        commands.append(_subcommand(verb, fields, owned, _building(methods)))
    return commands


def _said(error: CycloptsError) -> str:
    """Word an error of cyclopts: where, what was expected, what was seen."""
    error.verbose = False
    if isinstance(error, UnusedCliTokensError):
        verb = " ".join(error.command_chain or ())
        said = " ".join(error.unused_tokens or ())
        return f"unexpected: {said}. Beyond the usage line, values follow --options; graft {verb} --help lists them."
    if not (isinstance(error, CoercionError) and error.token and error.argument):
        return str(error)
    where = "" if error.token.source == "cli" else f"{error.token.source}: "
    expected = type_name(error.argument.hint)
    near = difflib.get_close_matches(error.token.value, expected.removeprefix("one of ").split(", "), 1)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    return f'{where}{error.token.keyword or error.argument.name}: expected {expected}, got "{error.token.value}".{hint}'
