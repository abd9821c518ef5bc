"""Every command and every relative link of the README and the docs is one that works in this checkout."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible.cli.adhoc import AdHocCLI
from ansible.cli.playbook import PlaybookCLI

from lab.__main__ import _parser as lab_parser
from tests.commands import REPOSITORY, run

PAGES = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
ASSIGNMENT = re.compile(r"^\w+=")
SEPARATORS = {"|", "&&", "||", ";"}
# The reader's own copy of the example, which the checks use in its place.
COPY, EXAMPLE = "inventory/production", "inventory/production.example"
# The shell's command that reads a file; a path of that name has no last part.
SOURCE = "."
# Programs that the docs may use, beside those that have a check of their own below.
PLAIN = {
    *("ansible-vault", "cp", "curl", "editor", "export", "grep", "install", "mkdir", "podman", "printf"),
    *("pip", "kubectl", "ssh", "tradewatch", SOURCE),
    *("base64", "date", "head", "openssl", "ping", "sed", "sort", "uniq"),
}
# A path of this checkout, as a word of a command or in backticks in the text.
OURS = (
    *("docs/", "files/", "inventory/", "lab/", "molecule/", "playbooks/", "plugins/", "python_services/", "roles/"),
    *("tests/", "site.yml", "group_vars/", "Makefile", "ansible.cfg", "requirements"),
)
# What a reader makes, and what is made when it is used.
MADE = ("inventory/production/group_vars/all/vault.yml",)


@dataclass(frozen=True)
class Command:
    """One simple command of a page: its words, without assignments before it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def program(self) -> str:
        return Path(self.words[0]).name or SOURCE


def lines_of(page: Path) -> list[str]:
    """The command lines in a page's fenced blocks: all of ``bash``, those behind ``$`` of ``console``."""
    found = []
    for language, body in FENCE.findall(page.read_text()):
        rows = body.replace("\\\n", " ").splitlines()
        if language == "bash":
            found += [row for row in rows if row.strip() and not row.startswith("#")]
        elif language == "console":
            found += [row[2:] for row in rows if row.startswith("$ ")]
    return found


def simple_commands(page: str, line: str) -> list[Command]:
    """A line's parts between pipes and the like; a line that only assigns has none."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[Command] = []
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
            continue
        while words and ASSIGNMENT.match(words[0]):
            words.pop(0)
        if words:
            found.append(Command(page, tuple(words)))
        words = []
    return found


def commands(*programs: str) -> list[Command]:
    """The docs' commands, or those of ``programs``."""
    found = []
    for page in PAGES:
        for line in lines_of(page):
            if re.match(r"^\w+=\$\(", line):
                continue
            found += simple_commands(str(page.relative_to(REPOSITORY)), line)
    return [command for command in found if not programs or command.program in programs]


def targets() -> set[str]:
    """The Makefile's targets."""
    rows = re.findall(r"^([a-z0-9 -]+):(?!=)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    return {name for row in rows for name in row.split()}


def exists(path: str) -> bool:
    """Whether a path of the checkout exists; the reader's inventory is the example, group_vars any inventory's."""
    path = path.rstrip("/")
    if path in MADE:
        return (REPOSITORY / (path.replace(COPY, EXAMPLE, 1) + ".example")).exists()
    if path == COPY or path.startswith(f"{COPY}/"):
        path = EXAMPLE + path.removeprefix(COPY)
    if path.startswith("group_vars/"):
        path = f"{EXAMPLE}/{path}"
    choice = re.search(r"{([^}]*)}", path)
    names = [path.replace(choice[0], one) for one in choice[1].split(",")] if choice else [path]
    return all(any(REPOSITORY.glob(name)) for name in names)


def test_there_are_commands() -> None:
    assert len(commands()) > 30
    assert {str(page.relative_to(REPOSITORY)) for page in PAGES} >= {"README.md", "docs/lab.md", "docs/operations.md"}


def test_every_program_is_known() -> None:
    checked = {"make", "molecule", "python", "python3", "pytest", "ansible", "ansible-playbook"}
    unknown = [str(command) for command in commands() if command.program not in PLAIN | checked]
    assert not unknown


def test_kubectl_is_told_which_cluster() -> None:
    # A shell in which nothing was set: it would ask localhost.
    assert not [str(command) for command in commands("kubectl") if "--kubeconfig" not in command.words]


def test_make_targets_exist() -> None:
    named = {word: str(c) for c in commands("make") for word in c.words[1:] if not ASSIGNMENT.match(word)}
    for page in PAGES:
        named |= dict.fromkeys(re.findall(r"`make ([a-z0-9-]+)`", page.read_text()), page.name)
    assert not {name: where for name, where in named.items() if name not in targets()}


def test_paths_exist() -> None:
    """Words of commands, and what stands in backticks, that name something of this checkout."""
    named = {word: str(command) for command in commands() for word in command.words[1:]}
    for page in PAGES:
        prose = FENCE.sub("", page.read_text())
        named |= {word: page.name for span in re.findall(r"`([^`\n]+)`", prose) for word in span.split()[:1]}
    literal = {word: where for word, where in named.items() if not re.search(r"[<>()]|[A-Z]{4}", word)}
    ours = {word: where for word, where in literal.items() if word.startswith(OURS)}
    assert len(ours) > 20
    assert not {word: where for word, where in ours.items() if not exists(word)}


def test_relative_links_resolve() -> None:
    missing = []
    for page in PAGES:
        for target in LINK.findall(FENCE.sub("", page.read_text())):
            if re.match(r"^[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                missing.append(f"{page.name}: {target}")
    assert not missing


def anchors(file: Path) -> set[str]:
    """The anchors that a Markdown page's headings get."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", file.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def ansible_options(command: Command) -> argparse.Namespace:
    """What Ansible's own parser makes of a command; it exits on an option that does not exist."""
    cli = (PlaybookCLI if command.program == "ansible-playbook" else AdHocCLI)(list(command.words))
    cli.init_parser()
    try:
        options: argparse.Namespace = cli.parser.parse_args(list(command.words[1:]))
    except SystemExit:
        pytest.fail(f"Ansible refuses {command}")
    return options


def test_playbooks_have_no_syntax_error(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text('{"hosts": {}, "gateway": "192.0.2.1"}')
    playbooks: dict[str, set[str]] = defaultdict(set)
    for command in commands("ansible-playbook"):
        options = ansible_options(command)
        for inventory in options.inventory or ["inventory/lab"]:
            playbooks[EXAMPLE if inventory == COPY else inventory] |= set(options.args)
    assert playbooks

    def check(inventory: str) -> None:
        command = ("ansible-playbook", "--syntax-check", "-i", inventory, *sorted(playbooks[inventory]))
        run(*command, env={"TRADEWATCH_LAB_DIR": str(tmp_path)})

    with ThreadPoolExecutor() as pool:
        list(pool.map(check, list(playbooks)))


def test_ad_hoc_commands_name_groups_and_modules() -> None:
    groups = {"all", "control_plane", "collectors", "trading", "analytics", "k3s_server", "k3s_agent", "k3s_cluster"}
    for command in commands("ansible"):
        options = ansible_options(command)
        assert options.args.split("[")[0] in groups, command
        assert options.module_name.startswith("ansible.builtin."), command


def test_python_modules_and_their_subcommands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = [(str(c), list(c.words[2:])) for c in commands("python", "python3") if c.words[1] == "-m"]
    for page in PAGES:
        named += [(page.name, span.split()) for span in re.findall(r"`python -m ([^`]+)`", page.read_text())]
    assert named
    for where, (module, *arguments) in named:
        assert importlib.util.find_spec(module), f"{where}: no module {module}"
        if module == "lab" and arguments:
            # What a reader fills in, such as NAME, need not be a value that is there.
            words = [word for word in arguments if not word.isupper()]
            try:
                lab_parser().parse_args(words)
            except SystemExit:
                pytest.fail(f"{where}: python -m lab refuses {' '.join(words)}: {capsys.readouterr().err}")


def test_make_targets_call_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    called = re.findall(r"python -m lab ([a-z][a-z -]*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert called
    for arguments in called:
        try:
            lab_parser().parse_args(arguments.split())
        except SystemExit:
            pytest.fail(f"Makefile: python -m lab refuses {arguments}: {capsys.readouterr().err}")


def test_services_and_their_subcommand_exist() -> None:
    known = run("tradewatch", "--help")
    for page in PAGES:
        for subcommand in re.findall(r"`tradewatch ([a-z-]+)", page.read_text()):
            assert re.search(rf"\b{subcommand}\b", known), f"{page.name}: tradewatch {subcommand}"


def test_molecule_scenarios_exist() -> None:
    for command in commands("molecule"):
        name = command.words[command.words.index("--scenario-name") + 1]
        assert (REPOSITORY / "molecule" / name / "molecule.yml").exists(), command


def test_tools_named_with_a_folder_are_installed() -> None:
    for command in commands():
        if command.words[0].startswith(".venv/bin/"):
            assert os.access(REPOSITORY / command.words[0], os.X_OK), command
