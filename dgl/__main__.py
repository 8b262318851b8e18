"""One command for everything, `dgl`; in the source tree, `python -m dgl`."""
import copy
import importlib
import importlib.metadata
import re

import click

from dnnlib.cli import Group
from dnnlib.installed import PREFIX

# Command → module with its `main`, and the line that the list of commands shows.
COMMANDS = {
    "train": ("train", "Train a network, or compress one."),
    "prune": ("prune_init", "Slice a student out of a teacher."),
    "cost": ("dgl.cost", "Print parameters, multiply-accumulates, memory and milliseconds."),
    "probe": ("dgl.probe", "Measure what a teacher's discriminator can do for a student."),
    "metrics": ("calc_metrics", "Score a network."),
    "generate": ("generate", "Generate images."),
    "video": ("gen_video", "Make a video that walks through latents."),
    "report": ("report", "Write a page about a student and its teacher."),
    "mix": ("style_mixing", "Mix the styles of images."),
    "project": ("projector", "Find the latent of an image."),
    "export": ("export", "Export a generator for other programs."),
    "dataset": ("dataset_tool", "Make a data set of images."),
    "convert": ("legacy", "Rewrite a network file."),
    "doctor": ("torch_utils.ops", "Show which compiled kernels this machine uses."),
}


_NAMES = {module: name for name, (module, _) in COMMANDS.items()}
_SCRIPT = re.compile(r"\bpython -m ([\w.]*\w)|\b(?:python )?(\w+)\.py\b")


def _named(text: str | None, program: str) -> str | None:
    """A help text that calls the commands by their names here (`dgl train`), not by scripts of the source tree."""
    def name(match: re.Match[str]) -> str:
        module = match[1] or match[2]
        return f"{program} {_NAMES[module]}" if module in _NAMES else match[0]

    return text and _SCRIPT.sub(name, text)


def _renamed(command: click.Command, program: str) -> click.Command:
    """The same command with such help texts."""
    command = copy.copy(command)
    command.help = _named(command.help, program)
    command.params = [copy.copy(param) for param in command.params]
    for param in command.params:
        if isinstance(param, click.Option):
            param.help = _named(param.help, program)
    if isinstance(command, click.Group):
        command.commands = {name: _renamed(sub, program) for name, sub in command.commands.items()}
    return command


class _Commands(Group):
    """Loads a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        module = {"torch_utils.ops": "torch_utils.ops.__main__"}.get(module, module)
        command = importlib.import_module(module if module.startswith("dgl.") else PREFIX + module).main
        return _renamed(command, str(ctx.find_root().info_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version() -> str:
    """Of the package that is installed; a source tree has none."""
    try:
        return importlib.metadata.version("dgl-stylegan2")
    except importlib.metadata.PackageNotFoundError:
        return "of a source tree"


@click.command(cls=_Commands, name="dgl")
@click.version_option(_version(), prog_name="dgl")
def main() -> None:
    """Train, compress and ship StyleGAN and BigGAN networks.

    `dgl COMMAND --help` explains a command. In the source tree each is a script of its own, too.
    """


if __name__ == "__main__":
    main(prog_name="python -m dgl")
