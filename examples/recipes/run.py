"""Runs each recipe in a new virtual environment, with the newest releases that pip finds: `make recipes`.

They are not in the development environment: their requirements contradict each other.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

RECIPES = {
    "with_langchain.py": ("langchain-openai", "langchain-anthropic"),
    "with_pydantic_ai.py": ("pydantic-ai-slim[openai,anthropic]",),
    "with_instructor.py": ("instructor", "anthropic"),
}
HERE = Path(__file__).parent


def main() -> int:
    failed = [recipe for recipe, packages in RECIPES.items() if not works(recipe, packages)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def works(recipe: str, packages: tuple[str, ...]) -> bool:
    """Run the recipe and return whether it succeeded. Prints the versions that it ran with."""
    with tempfile.TemporaryDirectory(prefix="aibridge-recipe-") as directory:
        venv.create(directory, with_pip=True)
        python = str(Path(directory) / "bin" / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        project = f"{HERE.parents[1]}[openai,anthropic,example]"
        subprocess.run([*pip, "install", "--quiet", project, *packages], check=True)
        names = [package.partition("[")[0] for package in packages]
        shown = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout.splitlines()
        versions = [line for line in shown if line.partition("==")[0] in {*names, "openai", "anthropic", "httpx2"}]
        print(f"{recipe}: {', '.join(versions)}", flush=True)
        return subprocess.run([python, str(HERE / recipe)], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
