"""No line of the package runs what it reads: looked for in the syntax tree, not in what tests happen to call."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "t2ialign").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
ESCAPED = {"body", "draw(block)", "svg"}
"""What templates pass on as it is: a page that was rendered with escaping, and drawings whose texts are escaped."""
UNPACKING = {"extractall", "unpack_archive"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_Loader"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def keyword(call: ast.Call, name: str) -> object:
    """The constant that a call gives by name; None if it is not given, ... if it is no constant."""
    value = next((each.value for each in call.keywords if each.arg == name), None)
    return None if value is None else value.value if isinstance(value, ast.Constant) else ...


def faults_of_call(call: ast.Call) -> Iterator[str]:
    name = dotted(call.func)
    last = name.rpartition(".")[2]
    if name in ("eval", "exec", "__import__", "compile") or name in SHELLS:
        yield f"{name} runs what it is given"
    if keyword(call, "shell") not in (None, False):
        yield "a shell"
    if name == "torch.load" and keyword(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    if name == "yaml.load" and not any(
        dotted(each.value).rpartition(".")[2] in SAFE_LOADERS for each in call.keywords if each.arg == "Loader"
    ):
        yield "yaml.load without a safe loader"
    if name in ("yaml.unsafe_load", "yaml.full_load", "yaml.load_all"):
        yield name
    if keyword(call, "allow_pickle") not in (None, False):
        yield "allow_pickle"
    if last in UNPACKING:
        yield f"{name} writes where an archive says"
    if keyword(call, "trust_remote_code") not in (None, False):
        yield "trust_remote_code"
    automatic = any(re.match("Auto[A-Z]", part) for part in name.split("."))
    if last == "from_pretrained" and automatic and keyword(call, "trust_remote_code") is not False:
        yield f"{name} may ask whether to run a repository's code: say trust_remote_code=False"
    if last == "Environment" and keyword(call, "autoescape") is not True:
        yield "templates that escape nothing"
    if last in ("Markup", "render_template_string"):
        yield f"{last} passes text on as it is"
    if keyword(call, "verify") is False:
        yield "a connection without its certificate"


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from ((node.lineno, fault) for fault in faults_of_call(node))
        elif isinstance(node, ast.Attribute) and dotted(node.value) in UNPICKLING:
            if node.attr not in ("UnpicklingError", "PicklingError"):
                yield node.lineno, f"{dotted(node)} unpickles"
        elif isinstance(node, ast.ImportFrom) and node.module in UNPICKLING:
            if {each.name for each in node.names} <= {"UnpicklingError", "PicklingError"}:
                continue
            yield node.lineno, f"from {node.module}"
        elif isinstance(node, ast.Constant) and node.value == "0.0.0.0":
            yield node.lineno, "an address that other machines reach"
        elif isinstance(node, ast.keyword) and node.arg is None and isinstance(node.value, ast.Dict):
            names = [each.value for each in node.value.keys if isinstance(each, ast.Constant)]
            if {"trust_remote_code", "weights_only", "allow_pickle"} & set(names):
                yield node.value.lineno, "an option of trust behind **"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_runs_what_it_reads(path: Path) -> None:
    found = list(faults(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, f"{path.relative_to(ROOT)}: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.load(file, weights_only=flag)",
        "pickle.loads(data)",
        "from pickle import loads",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "np.load(file, allow_pickle=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(file)",
        "CLIPModel.from_pretrained(name, trust_remote_code=True)",
        "CLIPModel.from_pretrained(name, trust_remote_code=options.trust)",
        "AutoModel.from_pretrained(name)",
        "transformers.AutoTokenizer.from_pretrained(name)",
        "Server(('0.0.0.0', 80))",
        "load(**{'trust_remote_code': True})",
        "requests.get(url, verify=False)",
        "jinja2.Environment(loader=loader)",
        "Markup(prompt)",
    ],
)
def test_each_of_these_would_be_found(line: str) -> None:
    assert list(faults(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(file, map_location='cpu', weights_only=True)",
        "model.eval()",
        "yaml.load(text, Loader=_Loader)",
        "yaml.safe_load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=False)",
        "subprocess.run([program])",
        "re.compile('a')",
    ],
)
def test_these_are_no_faults(line: str) -> None:
    assert not list(faults(ast.parse(line)))


def test_no_page_takes_text_for_code() -> None:
    """Templates turn escaping off nowhere, and scripts write text as text."""
    pages = [path for kind in ("*.html", "*.js") for path in (ROOT / "t2ialign").rglob(kind)]
    assert pages
    for path in pages:
        text = path.read_text(encoding="utf-8")
        for word in ("autoescape", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("):
            assert word not in text, f"{path.relative_to(ROOT)} holds {word}"
        for passed_on in re.findall(r"{{([^}]*)\|\s*safe\s*}}", text):
            assert passed_on.strip() in ESCAPED, f"{path.relative_to(ROOT)} passes {passed_on} on as it is"
        assert text.count("safe }}") + text.count("|safe") == len(re.findall(r"\|\s*safe\s*}}", text))
        assert not re.search(r"""(src|href)=["'](https?:)?//""", text), f"{path.relative_to(ROOT)} fetches"
