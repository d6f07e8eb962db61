"""Tab completion: `graft --install-completion`, or `eval "$(graft --completion bash)"` in a shell's start file."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

Shell = Literal["bash", "zsh", "fish"]


class _Scripted(App):
    """The command line with every option in it, so that its completion script knows them all."""

    def generate_completion(self, **options: Any) -> str:
        # An option that takes any text may take a file: let bash fall back to file names.
        return super().generate_completion(**options).replace("complete -F", "complete -o bashdefault -o default -F")


def add(app: App, commands: Callable[[], list[App]]) -> None:
    """Add the two completion commands to the command line; `commands` gives the verbs with all their options."""

    def scripted() -> App:
        every = _Scripted(name=app.name)
        for command in commands():
            every.command(command)
        return every

    def show(shell: Annotated[Shell, Parameter(help="the shell to write it for")], /) -> None:
        """Print the tab completion script of a shell."""
        print(scripted().generate_completion(shell=shell))

    def install(*, shell: Annotated[Shell | None, Parameter(help="the shell, if not the one running")] = None) -> None:
        """Install tab completion for your shell."""
        print(f"wrote {scripted().install_completion(shell=shell)}; it works in a new shell")

    app.command(show, name="--completion")
    app.command(install, name="--install-completion")
