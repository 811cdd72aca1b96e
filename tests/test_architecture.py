"""The house keeps its shape: floors, no cycles, the public names, provider names in their rooms, a light import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llm_master
from llm_master import PROVIDER_CONFIGS

PACKAGE = Path(llm_master.__file__).parent

# A module imports lower floors, or its own subpackage. The longest name that fits holds.
FLOORS = {
    "llm_master": 7,
    "llm_master.__main__": 7,
    "llm_master.cli": 7,
    "llm_master.router": 6,
    "llm_master.langchain": 6,
    "llm_master.rotating_client": 6,
    "llm_master.openai_objects": 5,  # what it returns
    "llm_master.chunk_stream": 5,  # the same in pieces
    "llm_master.openai_arguments": 5,  # what it is given
    "llm_master.query": 5,
    "llm_master.inquiries": 4.8,  # those of its methods that cost nothing
    "llm_master.discovery": 4.7,  # which models there are
    "llm_master.health": 4.7,  # whether providers answer
    "llm_master.operations": 4.7,  # what the query object does beside querying
    "llm_master.asking": 4.8,  # from a query's arguments to a call
    "llm_master.engines": 4.6,  # which engine serves which settings: reads the table
    "llm_master.names": 3.6,  # which name leads where: beneath the engine
    "llm_master.engine": 3.7,  # behind the query object: it is given what the table and the settings say
    "llm_master.testing": 5,
    "llm_master.provider_configs": 4,
    "llm_master.provider_plugins": 4.65,  # the table and the settings, seen as classes
    "llm_master.observing": 3.6,  # who listens to an engine's queries
    "llm_master.metrics": 2.5,  # above dispatch, which is given it as an argument
    "llm_master.telemetry": 2.5,  # the same
    "llm_master.telemetry_content": 1,
    "llm_master.logs": 0,
    "llm_master.provider_rows": 3,
    "llm_master.snapshot": 3.5,  # what provider_configs.py makes of rows and settings: above the providers, below the table
    "llm_master.row_places": 3.45,  # where a row is asked
    "llm_master.row_classes": 3.4,  # a row's class, for the snapshot and what is above it
    "llm_master.providers": 3,
    "llm_master.generators": 3.25,  # what rows point to beside their provider_class, a provider's class among it
    "llm_master.dispatch": 2,
    "llm_master.messages": 2,
    "llm_master.structured": 1.9,
    "llm_master.structured_format": 1.5,
    "llm_master.structured_types": 1,
    "llm_master.strict_schema": 1,
    "llm_master.model_registry": 1,
    "llm_master.registry_check": 0.5,  # what a file of models must be
    "llm_master.registry_sync": 1.5,  # what other lists say of models
    "llm_master.pricing": 1,
    "llm_master.settings": 1,
    "llm_master.storage": 1.1,  # its connections are closed with the loop's session
    "llm_master.transport": 1,
    "llm_master.background": 1,
    "llm_master.provider_table": 1,  # the mapping behind the table: it knows rows, and no provider
    "llm_master.plugins": 0.5,  # what installed packages bring; both tables ask it
    "llm_master.types": 0,
    "llm_master.story": 0,
    "llm_master.results": 0,
    "llm_master.media": 0,
    "llm_master.rows": 0,
    "llm_master.model_rows": 0.2,  # stands on rows.py
    "llm_master.row_checks": 0,
    "llm_master.errors": 0,
    "llm_master.clock": 0,
}
GROUND = {name for name, floor in FLOORS.items() if floor == 0}

PUBLIC_NAMES = [
    "Attempt",
    "Audio",
    "AudioDelta",
    "AuthenticationError",
    "BaseLLMProvider",
    "BaseProvider",
    "BudgetExceededError",
    "Citation",
    "ConfigurationError",
    "ContentPolicyError",
    "ContextWindowExceededError",
    "CostEstimate",
    "DeadlineExceededError",
    "EmbeddingResponse",
    "GenerationParams",
    "Image",
    "InsufficientFundsError",
    "InvalidOutputError",
    "InvalidRequestError",
    "KeyHealth",
    "LLMConfig",
    "LLMError",
    "LLMResponse",
    "LLMStream",
    "ListedModel",
    "MissingApiKeyError",
    "ModelConfig",
    "ModelList",
    "ModelNotFoundError",
    "ModelRegistry",
    "ModerationResponse",
    "ModerationResult",
    "OpenAICompatibleProvider",
    "OpenRouterProvider",
    "PROVIDER_CONFIGS",
    "PROVIDER_PLUGINS",
    "PermissionDeniedError",
    "Plan",
    "PricingError",
    "ProviderConfig",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderHealth",
    "ProviderInterface",
    "ProviderModels",
    "QueryLLM",
    "RateLimitError",
    "RateLimitState",
    "ReasoningDelta",
    "Receipt",
    "RequestTimeoutError",
    "RerankResponse",
    "RerankResult",
    "RotatingClient",
    "Router",
    "ServerError",
    "StreamEnd",
    "StreamInterruptedError",
    "TextDelta",
    "TokenCount",
    "ToolCall",
    "ToolCallDelta",
    "UnifiedProvider",
    "UnknownModelError",
    "Usage",
    "__version__",
    "download",
    "extract_prompt",
]

HTTP_CLIENTS = {"aiohttp", "httpx", "httpx2", "requests", "urllib3", "http", "niquests", "pycurl"}

# Where a provider's name may stand outside the table, models.json and its own file, and why.
NAMES_ALLOWED = {
    ("__init__.py", "openai"): "the wire format of OpenAICompatibleProvider has no other name",
    ("providers/__init__.py", "openai"): "the same",
    ("providers/unified.py", "openai"): "the same",
    ("providers/__init__.py", "mock"): "MockProvider is imported from there by the guides' code",
    ("provider_configs.py", "openrouter"): "OpenRouterProvider is made of a row of the table, and so comes by way of it",
    ("rows.py", "openai"): "the SDK whose class is the default client_class",
    ("providers/sdk.py", "openai"): "the SDK whose exceptions and stock classes this file knows",
    ("providers/sdk.py", "azure"): "stock classes of that SDK",
    ("providers/azure.py", "openai"): "the API that it serves, in its addresses and by its SDK",
    ("providers/bedrock.py", "anthropic"): "whose models it serves as well, with the same parameters",
    ("providers/bedrock.py", "openai"): "options by OpenAI's names are what it translates, and a family of models",
    ("providers/chat_format.py", "groq"): "x_groq is a field of the wire format, read wherever it comes",
    ("providers/chat_stream.py", "groq"): "the same field",
    ("providers/interface.py", "openai"): "the package whose HTTP client such a class is given, and whose objects it returns",
    ("providers/anthropic.py", "openai"): "options by OpenAI's names are what it translates",
    ("generators/images.py", "openai"): "the API whose shape this generator speaks",
    ("generators/images.py", "recraft"): "a generator of one provider, beside the one whose shape it shares",
    ("providers/vertex.py", "gemini"): "Gemini's wire format at another address",
    ("structured_format.py", "openai"): "the form of response_format on the wire has no other name",
    ("structured.py", "openai"): "the same",
    ("dispatch/resolve.py", "groq"): "an example of a model's name in an error",
    ("dispatch/resolve.py", "openai"): "the same example",
    ("query.py", "openai"): "an example of a field in an error",
    ("langchain/model.py", "openai"): "LangChain's function that makes a tool of anything has it in its name",
    ("langchain/structured.py", "openai"): "the same, and the module of its parsers",
    ("openai_objects.py", "openai"): "the SDK whose objects it makes",
    ("rotating_client.py", "openai"): "the same SDK",
    ("chunk_stream.py", "openai"): "the same SDK",
    ("cli/query.py", "groq"): "an example of a model's name in --help",
    ("cli/query.py", "openai"): "the same example, and one of a variable to set",
    ("cli/query.py", "mock"): "it answers where no key is set, and the command says so",
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def runtime_nodes(tree: ast.AST):
    """Every node but those under ``if TYPE_CHECKING:``, which never run."""
    for child in ast.iter_child_nodes(tree):
        if is_type_checking(child):
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield child
        yield from runtime_nodes(child)


def imported_names(module: str) -> set[str]:
    """Absolute dotted names that a module imports anywhere, also inside functions."""
    names = set()
    for node in runtime_nodes(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            # ``from package import module`` is an import of the module, where there is one.
            names |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return names


OWN_IMPORTS = {module: {name for name in imported_names(module) if name.partition(".")[0] == "llm_master"} for module in MODULES}


def room(module: str) -> str:
    return next(name for name in (module, *(module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1))) if name in FLOORS)


def test_every_module_has_its_floor():
    # The package itself would take in any new module: it stands for __init__ alone.
    assert [module for module in MODULES if room(module) == "llm_master" and module != "llm_master"] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_lower_floors_or_its_own_subpackage(module):
    here = room(module)
    wrong = []
    for imported in OWN_IMPORTS[module]:
        there = room(imported)
        if there == here or FLOORS[there] < FLOORS[here]:
            continue
        if {here, there} <= GROUND:
            continue
        # Two rooms on one floor: a class has a generator for a method, and a generator is written with the classes' parts.
        if {here, there} == {"llm_master.providers", "llm_master.generators"}:
            continue
        # The commands and `python -m` share the top floor with the package that they start from.
        if (here, there) == ("llm_master.__main__", "llm_master.cli"):
            continue
        wrong.append(f"{module} (floor {FLOORS[here]}) imports {imported} (floor {FLOORS[there]})")
    assert wrong == []


def test_no_import_cycle_not_even_inside_a_function():
    state: dict[str, str] = {}
    cycles = []

    def visit(module: str, path: tuple[str, ...]) -> None:
        if state.get(module) == "done":
            return
        if state.get(module) == "open":
            cycles.append(" -> ".join([*path[path.index(module) :], module]))
            return
        state[module] = "open"
        for imported in sorted(OWN_IMPORTS[module]):
            if imported in MODULES:
                visit(imported, (*path, module))
        state[module] = "done"

    for module in MODULES:
        visit(module, ())
    assert cycles == []


def test_every_import_of_ours_exists():
    assert {name for names in OWN_IMPORTS.values() for name in names} <= set(MODULES)


def test_the_public_names_are_exactly_these():
    assert llm_master.__all__ == PUBLIC_NAMES
    assert dir(llm_master) == PUBLIC_NAMES


def test_every_public_name_can_be_imported():
    for name in PUBLIC_NAMES:
        namespace: dict[str, object] = {}
        exec(f"from llm_master import {name}", namespace)
        assert namespace[name] is getattr(llm_master, name)


def test_type_checkers_are_told_the_same_names():
    tree = ast.parse(MODULES["llm_master"].read_text(encoding="utf-8"))
    told = set()
    for block in filter(is_type_checking, tree.body):
        told |= {alias.asname for node in ast.walk(block) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told | {"__version__"} == set(PUBLIC_NAMES)


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="llm_master.*QueryLLMs"):
        _ = llm_master.QueryLLMs


PROVIDER_FILES = {path.stem for folder in ("providers", "generators") for path in (PACKAGE / folder).glob("*.py")}


def words_of_code(path: Path) -> set[str]:
    """Words of a file's identifiers and strings, in lower case; not of comments or docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # A string that is a statement by itself documents, and does nothing.
    documenting = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and id(node) not in documenting:
            texts.append(node.value if isinstance(node.value, str) else node.value.decode(errors="replace"))
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                # AsyncOpenAI, GroqPart: a name may be a part of another.
                texts += [text.replace("OpenAI", "_openai_"), re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)]
    return {word.lower() for text in texts for word in re.findall(r"[A-Za-z0-9]+", text.replace("OpenAI", " openai "))}


def test_a_providers_name_stands_in_its_row_and_its_own_file_only():
    # "local" is a word of the language as well.
    names = {name.lower().replace("_", "") for name in PROVIDER_CONFIGS} - {"local"}
    found = set()
    for path in MODULES.values():
        where = path.relative_to(PACKAGE).as_posix()
        if where == "provider_rows.py":
            continue
        for name in words_of_code(path) & names:
            # Its own file, or the files of its wire format: anthropic.py, anthropic_messages.py.
            if path.stem.partition("_")[0] == name and path.parent.name in ("providers", "generators"):
                continue
            found.add((where, name))
    assert found - set(NAMES_ALLOWED) == set(), "a provider is named outside its rooms"
    assert set(NAMES_ALLOWED) - found == set(), "an exception that nobody needs any more: take it out"


def test_only_transport_imports_an_http_client():
    using = {
        module
        for module in MODULES
        if any(name.partition(".")[0] in HTTP_CLIENTS or name.startswith("urllib.request") for name in imported_names(module))
    }
    # The fault server is one itself, and its handle in a test speaks with it by the standard library.
    servers = {"llm_master.testing.app", "llm_master.testing.sending", "llm_master.testing.serving", "llm_master.testing.fault_server"}
    assert {name for name in using if room(name) != "llm_master.transport"} == servers
    assert "llm_master.transport" in using


@pytest.mark.parametrize("module", ["llm_master.transport", "llm_master.transport.session"])
def test_transport_imports_its_http_client_on_first_use_only(module: str):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert top
    assert not {name.partition(".")[0] for node in top for name in _imported(node)} & {*HTTP_CLIENTS, "urllib", "ssl"}


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]


WATCHED_IMPORT = """
import sys, os, json, logging

events = []
class Watched(type(os.environ)):
    def _note(self, name):
        frame = sys._getframe(2)
        files = []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        # Who asks first, past the standard library's own helpers around os.environ, is who reads it.
        asker = next((f for f in files if os.sep + "llm_master" + os.sep in f or "importlib" in f or "site-packages" in f), "")
        if os.sep + "llm_master" + os.sep in asker:
            events.append(["environment", name])
    def __getitem__(self, key): self._note(key); return super().__getitem__(key)
    def get(self, key, default=None): self._note(key); return super().get(key, default)
    def __contains__(self, key): self._note(key); return super().__contains__(key)
    def __iter__(self): self._note("*"); return super().__iter__()
    def copy(self): self._note("*"); return super().copy()

os.environ.__class__ = Watched

def audit(event, args):
    if event.startswith("socket."):
        events.append([event, ""])
    elif event == "open" and str(args[0]).endswith(".env"):
        events.append([event, str(args[0])])
sys.addaudithook(audit)

handlers = list(logging.root.handlers)
STATEMENT
new_handlers = [h for h in logging.root.handlers if h not in handlers]
for logger in list(logging.root.manager.loggerDict.values()):
    if getattr(logger, "name", "").startswith("llm_master"):
        new_handlers += logger.handlers
heavy = [m for m in ("aiohttp", "openai", "httpx", "httpx2", "pydantic", "genai_prices", "dotenv", "requests", "click", "langchain_core") if m in sys.modules]
heavy = [m for m in ("aiohttp", "openai", "httpx", "httpx2", "pydantic", "genai_prices", "dotenv", "requests", "click", "opentelemetry") if m in sys.modules]
print(json.dumps({"events": events, "handlers": [repr(h) for h in new_handlers], "heavy": heavy}))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import llm_master",
        "from llm_master import QueryLLM, PROVIDER_CONFIGS",
        "from llm_master import RotatingClient",
        "from llm_master import *",
    ],
)
def test_importing_reads_nothing_opens_nothing_and_loads_nothing_heavy(statement, tmp_path):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-the-file\n")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED_IMPORT.replace("STATEMENT", statement)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PACKAGE.parent), "OPENAI_API_KEY": "sk-from-the-environment", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {"events": [], "handlers": [], "heavy": []}


def test_the_watch_on_the_import_sees_what_it_should(tmp_path):
    """The test above would pass if its watch were blind."""
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-the-file\n")
    statement = "import llm_master, socket; llm_master.QueryLLM(); socket.socket().close(); logging.root.addHandler(logging.NullHandler())"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED_IMPORT.replace("STATEMENT", statement)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PACKAGE.parent), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seen = json.loads(done.stdout)
    kinds = {event for event, _ in seen["events"]}
    assert "environment" in kinds
    assert "open" in kinds
    assert any(kind.startswith("socket.") for kind in kinds)
    assert seen["handlers"]
    assert "dotenv" in seen["heavy"]
