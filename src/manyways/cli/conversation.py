"""A conversation on a terminal: a prompt, commands that begin with a slash, answers that stream.

input ──▶ /command ──▶ what it says
  │
  └─────▶ question ──▶ answer, drawn as it comes ──▶ a line about it
                            │
                          Ctrl-C: stopped, and back to the prompt
"""

import asyncio
import readline
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from manyways.cli.gateway import Answer, Gateway, GatewayFailed, Message, ModelRow, Question
from manyways.cli.markdown import LiveMarkdown, printable
from manyways.errors import ManywaysError

HELP: Final = (
    ("/model [NAME]", "talk with another model; without a name, choose from a list"),
    ("/models [PART]", "list the models, or those with PART in their name"),
    ("/system [TEXT]", "set the system message, /system - to do without; alone: show it"),
    ("/clear", "begin a new conversation"),
    ("/retry", "ask the last question again"),
    ("/save FILE", "write the conversation to FILE: Markdown, or JSON if it ends in .json"),
    ("/help", "this list"),
    ("/quit", "leave, as Ctrl-D or Ctrl-C twice"),
)
COMMANDS: Final = tuple(line.partition(" ")[0] for line, _ in HELP)

_FINISHED: Final = {
    "length": "It ends here because it reached its limit of tokens.",
    "content_filter": "It ends here because the provider's filter stopped it.",
}


class Turn(NamedTuple):
    """A question and what was answered."""

    question: str
    answer: str


class Conversation:
    """Talks with `model` until the user leaves.

    `turns` is what the model is told of the past. `_last` is the last question, answered or
    not, which `/retry` asks again.
    """

    def __init__(
        self, gateway: Gateway, model: str, *, provider: str = "", system: str = ""
    ) -> None:
        self.model = model
        self.provider = provider
        self.system = system
        self.turns: list[Turn] = []
        self._gateway = gateway
        self._last: str | None = None
        self._rows: list[ModelRow] = []
        self._console = Console(highlight=False)
        self._commands: dict[str, Callable[[str], None]] = {
            "/model": self._choose,
            "/models": self._list,
            "/system": self._set_system,
            "/clear": self._clear,
            "/retry": self._retry,
            "/save": self._save,
            "/help": self._help,
        }

    def __repr__(self) -> str:
        return f"<Conversation with {self.model}, {len(self.turns)} turns>"

    def run(self) -> None:
        """Returns when the user leaves."""
        say = self._console.print
        say(f"[bold]Manyways[/bold] [dim]at {escape(self._gateway.url)}[/dim]")
        say(f"You talk with [bold cyan]{escape(self.model)}[/bold cyan].")
        say("[dim]/help tells what else can be done, Ctrl-D leaves.[/dim]\n")
        prompt = _prompt(self._console, self._suggestions)
        # What is typed ahead, a Ctrl-D too, waits for the next prompt as it was typed.
        with _keyboard_without(termios.ICANON):
            self._listen(prompt)

    def _listen(self, prompt: str) -> None:
        say = self._console.print
        warned = False
        while True:
            try:
                line = _read(prompt)
            except EOFError:
                say()
                return
            except KeyboardInterrupt:
                say()
                if warned:
                    return
                warned = True
                say("[dim]Ctrl-C once more leaves.[/dim]")
                continue
            warned = False
            if line in ("/quit", "/exit"):
                return
            if line:
                self._obey(line)

    def _obey(self, line: str) -> None:
        try:
            name, _, rest = line.partition(" ")
            if not line.startswith("/"):
                self._ask(line)
            elif command := self._commands.get(name):
                command(rest.strip())
            else:
                self._complain(f"There is no command {name}; /help lists them.")
        except ManywaysError as error:
            self._complain(str(error))
        except KeyboardInterrupt:
            self._console.print()
        self._console.print()

    def _complain(self, words: str) -> None:
        self._console.print(Text(printable(words), style="red"))

    def _note(self, words: str) -> None:
        self._console.print(Text(printable(words), style="dim"))

    # Questions

    def _ask(self, text: str) -> None:
        self._last = text
        answer = Answer()
        past = [
            message
            for turn in self.turns
            for message in (Message("user", turn.question), Message("assistant", turn.answer))
        ]
        opening = [Message("system", self.system)] if self.system else []
        question = Question(
            model=self.model,
            messages=[*opening, *past, Message("user", text)],
            provider=self.provider,
        )
        self._console.print()
        try:
            with _keyboard_without(termios.ECHO):
                asyncio.run(self._show(question, answer))
        except KeyboardInterrupt:
            self._console.print()
            self._note("Stopped.")
            if answer.content:
                self.turns.append(Turn(text, answer.content))
            return
        except GatewayFailed as error:
            cut = ""
            if answer.content:
                self._console.print()
                cut = "The answer is cut here: "
            self._complain(f"{cut}{error.explained()}")
            self._note("/retry asks again.")
            return
        self.turns.append(Turn(text, answer.content))
        self._tell_about(answer)

    async def _show(self, question: Question, answer: Answer) -> None:
        with LiveMarkdown(self._console, f"{question.model} …") as shown:
            drawing = asyncio.create_task(shown.draw())
            try:
                await self._gateway.ask(question, answer, shown.feed)
            finally:
                drawing.cancel()

    def _tell_about(self, answer: Answer) -> None:
        if not answer.content:
            self._note("The answer is empty.")
        if words := _FINISHED.get(answer.finish_reason or ""):
            self._console.print(Text(words, style="yellow"))
        self._console.print()
        self._note(" · ".join(_facts(answer)))

    def _retry(self, _rest: str) -> None:
        if self._last is None:
            self._complain("There is no question yet to ask again.")
            return
        if self.turns and self.turns[-1].question == self._last:
            self.turns.pop()
        self._note(f"> {self._last}")
        self._ask(self._last)

    def _clear(self, _rest: str) -> None:
        self.turns.clear()
        self._last = None
        self._note("A new conversation; the model knows nothing of the old one.")

    # Models

    def _load(self) -> None:
        self._rows = asyncio.run(self._gateway.models())

    def _list(self, part: str) -> None:
        self._load()
        self._print_models(part)

    def _choose(self, name: str) -> None:
        self._load()
        if not name:
            self._print_models("")
            try:
                name = input("Number or name: ").strip()
            except EOFError:
                name = ""
                self._console.print()
            if not name:
                self._note(f"It stays {self.model}.")
                return
        chosen = self._found(name)
        if chosen is None:
            self._complain(f"There is no one model {name} here; /models lists those there are.")
        else:
            self.model = chosen
            self._console.print(f"You talk with [bold cyan]{escape(chosen)}[/bold cyan].")

    def _found(self, name: str) -> str | None:
        """The model that a number, a name or an unmistakable part of one means."""
        if name == "auto":
            return name
        if name.isdecimal() and 1 <= int(name) <= len(self._rows):
            return self._name(self._rows[int(name) - 1])
        if any(name in (row.id, f"{row.provider}/{row.id}") for row in self._rows):
            return name
        like = {row.id for row in self._rows if name.lower() in row.id.lower()}
        return like.pop() if len(like) == 1 else None

    def _name(self, row: ModelRow) -> str:
        """The row's id; with its provider, where several have the id."""
        shared = sum(other.id == row.id for other in self._rows) > 1
        return f"{row.provider}/{row.id}" if shared else row.id

    def _print_models(self, part: str) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("#", justify="right", style="dim", no_wrap=True)
        table.add_column("Model", overflow="fold")
        table.add_column("Provider", no_wrap=True)
        table.add_column("Kind", no_wrap=True)
        table.add_column("Context", justify="right", no_wrap=True)
        table.add_column("Latency", justify="right", no_wrap=True)
        for number, row in enumerate(self._rows, 1):
            if part.lower() not in row.id.lower():
                continue
            current = self.model in (row.id, f"{row.provider}/{row.id}")
            table.add_row(
                str(number),
                Text(printable(row.id), style="bold cyan" if current else ""),
                Text(printable(row.provider)),
                row.category,
                "" if row.context_window is None else f"{row.context_window:,}",
                "" if row.latency_ms is None else f"{row.latency_ms / 1000:.1f} s",
            )
        if table.row_count:
            self._console.print(table)
        else:
            self._note("No model has that in its name." if part else "There are no models now.")

    # The rest

    def _set_system(self, text: str) -> None:
        if text:
            self.system = "" if text == "-" else text
            self._note("From the next answer on." if self.system else "There is none any more.")
        else:
            self._note(self.system or "There is no system message. /system TEXT sets one.")

    def _save(self, name: str) -> None:
        if not name:
            self._complain("Say where to: /save talk.md")
            return
        file = Path(name).expanduser()
        try:
            with file.open("x", encoding="utf-8") as out:
                out.write(self._as_json() if file.suffix == ".json" else self._as_markdown())
        except FileExistsError:
            self._complain(f"{file} is there already; choose another name.")
        except OSError as error:
            self._complain(f"{file} cannot be written: {error.strerror}.")
        else:
            self._note(f"Saved to {file}.")

    def _as_markdown(self) -> str:
        parts = [f"*System:* {self.system}\n"] if self.system else []
        parts += [
            f"## You\n\n{turn.question}\n\n## Answer\n\n{turn.answer.strip()}\n"
            for turn in self.turns
        ]
        return "\n".join(parts)

    def _as_json(self) -> str:
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
        encoded = msgspec.json.encode({"model": self.model, "messages": messages})
        return msgspec.json.format(encoded).decode() + "\n"

    def _help(self, _rest: str) -> None:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for command, meaning in HELP:
            table.add_row(Text(command), Text(meaning))
        self._console.print(table)
        self._note("Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.")

    def _suggestions(self, line: str) -> list[str]:
        """What the Tab key completes a line to."""
        command, space, _ = line.partition(" ")
        if not space:
            return list(COMMANDS)
        return [row.id for row in self._rows] if command in ("/model", "/models") else []


def _facts(answer: Answer) -> list[str]:
    """Who answered, how fast, and how much, as far as is known."""
    facts = [name for name in (answer.model, answer.provider) if name]
    if answer.instead_of and answer.instead_of != answer.model:
        facts[:1] = [f"{answer.model} instead of {answer.instead_of}"]
    if answer.first_token_ms is not None:
        facts.append(f"first token {answer.first_token_ms / 1000:.1f} s")
    if (speed := answer.tokens_per_second) is not None:
        facts.append(f"{speed:.0f} tokens/s")
    usage = answer.usage or {}
    if "prompt_tokens" in usage and "completion_tokens" in usage:
        facts.append(f"{usage['prompt_tokens']} → {usage['completion_tokens']} tokens")
    return facts


def _read(prompt: str) -> str:
    """A line, or several where all but the last end in a backslash."""
    lines: list[str] = []
    while True:
        line = input("… " if lines else prompt)
        if not line.endswith("\\"):
            return "\n".join([*lines, line]).strip()
        lines.append(line.removesuffix("\\"))


def _prompt(console: Console, suggestions: Callable[[str], list[str]]) -> str:
    """Set up line editing, history and completion; returns the prompt."""

    def complete(text: str, state: int) -> str | None:
        line = readline.get_line_buffer()
        found = [one for one in suggestions(line) if one.startswith(text)] if text else []
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    if console.no_color or not console.is_terminal or console.is_dumb_terminal:
        return "› "
    # Between \x01 and \x02 stands what takes no room on the line.
    return "\x01\x1b[1;36m\x02›\x01\x1b[0m\x02 "


@contextmanager
def _keyboard_without(flag: int) -> Iterator[None]:
    """The terminal with one of its local modes off (termios(3))."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    without = before.copy()
    without[3] &= ~flag
    termios.tcsetattr(number, termios.TCSANOW, without)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSANOW, before)
