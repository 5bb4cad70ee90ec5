"""What the documentation takes from the code: the lists of files, of settings, and the API pages.

``python docs/pages.py`` brings docs/architecture.md up to date; mkdocs runs this file as a hook.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("core", "density", "cropping", "fusion", "detectors", "pipeline")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MARK = "<!-- from here on made by docs/pages.py -->\n"
LINKS = {
    "docs/": "",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Places of files in the repository, and on the site."""


def modules(package: str) -> list[Path]:
    """The modules of a package, those of each folder together, the folder's own ones first."""
    found = (ROOT / package).rglob("*.py")
    return sorted(found, key=lambda path: (path.parent.parts, path.name != "__init__.py", path))


def dotted(path: Path) -> str:
    """The import name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("dmnet", *parts)).removesuffix(".__init__")


def first_line(path: Path) -> str:
    """First line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return text.splitlines()[0] if text else ""


def module_list() -> str:
    """Every module with the first line of its docstring, folder by folder, as markdown."""
    parts = []
    for package in PACKAGES:
        for path in modules(package):
            text = first_line(path)
            if path.name == "__init__.py":
                parts += [f"\n### {path.parent.relative_to(ROOT).as_posix()}/\n", f"{text}\n"]
            else:
                parts.append(f"- `{path.name}` {text}")
    return "\n".join(parts) + "\n"


def architecture() -> str:
    """docs/architecture.md as it should be: the written part, then the list."""
    written, mark, _ = ARCHITECTURE.read_text(encoding="utf-8").partition(MARK)
    return written + mark + module_list()


def settings_page() -> str:
    """Every setting of every stage with default and help, as markdown tables."""
    from dmnet.core.config_help import describe
    from dmnet.pipeline.context import STAGES, stage_module

    parts = [
        "# Settings\n",
        "Each setting is a `--section.name` option of its verb and a key in YAML files "
        "(`section: {name: value}`, with `_` or `-`). Numbers outside their range are refused.\n",
    ]
    for stage in STAGES:
        cls = stage_module(stage).Config
        parts += [f"## {stage}\n", f"{(cls.__doc__ or '').splitlines()[0]}\n"]
        parts += ["| setting | default | |", "|---|---|---|"]
        parts += [
            f"| `{name}` | `{default}` | {_cell(text)} |"
            for name, default, text in describe(cls, stage)
        ]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def api_pages() -> Iterator[tuple[str, str]]:
    """File name and markdown of the API pages, one for each folder."""
    yield "api/index.md", _api("dmnet", [ROOT / "src" / "dmnet" / "__init__.py"])
    for package in PACKAGES:
        folders = sorted({path.parent for path in modules(package)})
        for folder in folders:
            name = dotted(folder / "__init__.py")
            yield f"api/{name.removeprefix('dmnet.')}.md", _api(name, sorted(folder.glob("*.py")))


def _api(name: str, files: list[Path]) -> str:
    names = [name if path.name == "__init__.py" else f"{name}.{path.stem}" for path in files]
    return "\n".join([f"# {name}\n", *(f"::: {each}\n" for each in names)])


def for_site(path: str) -> str:
    """A page of the repository, its links as they are on the site."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for here, there in LINKS.items():
        text = re.sub(rf"\]\({re.escape(here)}", f"]({there}", text)
    return text


def generated() -> dict[str, str]:
    """Every page that no file of docs/ holds, by its place on the site."""
    return {
        "index.md": for_site("README.md"),
        "contributing.md": for_site("CONTRIBUTING.md"),
        "benchmarks.md": for_site("benchmarks/README.md"),
        "settings.md": settings_page(),
        **dict(api_pages()),
    }


def on_config(config: Any) -> Any:
    """Called by mkdocs: put the API pages into the navigation."""
    config.nav.append({"API": [name for name, _ in api_pages()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs: add the generated pages."""
    from mkdocs.structure.files import File

    for name, text in generated().items():
        files.append(File.generated(config, name, content=text))
    return files


if __name__ == "__main__":
    ARCHITECTURE.write_text(architecture(), encoding="utf-8")
